"""Rewards of your own beside CSER: two plain functions and a weighted sum, without a GPU or a server.

    python examples/custom_reward.py

To train with them, name them in the run's configuration (docs/rewards.md says how):

    rewards:
      terms:
        - {name: cser}
        - {name: "examples/custom_reward.py:no_hedging", weight: 0.5}
        - {name: "examples/custom_reward.py:unlike_the_others", weight: 0.2}
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from owlcap.config import RewardsSection, RewardTerm
from owlcap.types import RewardBreakdown, Sample
from rewards import reward
from rewards.suite import make_suite


@reward("no_hedging")
def no_hedging(caption: str, sample: Sample, words: Sequence[str] = ("maybe", "perhaps", "seems")) -> int:
    """For each caption: 0, and 1 less for every word that does not commit itself. `words` is an option."""
    return -sum(caption.lower().split().count(word) for word in words)


@reward("unlike_the_others")
async def unlike_the_others(captions: Sequence[str]) -> list[float | None]:
    """For all captions of a group at once: the share of a caption's words that no other caption of the clip has.

    None where a caption has no words: it has no value, and is left out of the group's statistics.
    """
    own = [set(caption.lower().split()) for caption in captions]
    others = [set().union(*own[:i], *own[i + 1 :]) for i in range(len(own))]
    return [len(mine - theirs) / len(mine) if mine else None for mine, theirs in zip(own, others, strict=True)]


def main() -> None:
    """Score three captions of one clip and print the parts."""
    sample = Sample("clip", "clip.mp4", prompt="", caption="", reference="Someone in a red shirt jumps, then waves.")
    captions = ("Someone in a red shirt jumps, then waves.", "Perhaps someone in a red shirt waves.", "")
    terms = (
        RewardTerm(name="cser"),
        RewardTerm(name="no_hedging", weight=0.5, options={"words": ["perhaps"]}),
        RewardTerm(name="unlike_the_others", weight=0.2),
    )
    suite = make_suite(RewardsSection(terms=terms))
    for caption, outcome in zip(captions, asyncio.run(suite.score_group(sample, captions)), strict=True):
        if isinstance(outcome, RewardBreakdown):
            parts = ", ".join(f"{name} {part.value:.2f}" for name, part in outcome.parts.items())
            print(f"{outcome.total:.2f}  ({parts})  {caption}")
        else:
            print(f"unscored by {outcome.reward}: {outcome.reason}")


if __name__ == "__main__":
    main()
