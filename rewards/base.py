"""What a reward and a judge are.

A reward gives every caption of a group a value or a stated failure, never a default 0. A judge splits two
captions into units and labels each unit against the whole other caption (OwlCap section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from owlcap.types import Judgement, Sample, Score, Unscored

if TYPE_CHECKING:
    from rewards.judges import Judges


@runtime_checkable
class Reward(Protocol):
    """Scores one group: all captions sampled for one clip.

    One that scores each caption without looking at the others says so by the attribute `per_caption = True`. It is
    then called for each alone, so that a caption that misses its deadline takes no other with it.
    """

    name: str

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[Score | Unscored]:
        """One Score or Unscored a caption, in order. Values are finite numbers."""
        ...


class Judge(Protocol):
    """Decides which units of two captions agree with the other caption."""

    async def judge(self, predicted: str, reference: str) -> Judgement:
        """Both unit lists, labelled.

        Raises:
            JudgeError: the judge cannot be reached, or its reply cannot be read. The rollout is then unscored.
        """
        ...


@runtime_checkable
class Closeable(Protocol):
    """A reward that holds something open."""

    async def close(self) -> None:
        """Release them. Called once, by whoever closes the suite."""
        ...


RewardFactory = Callable[["Judges", Mapping[str, Any]], Reward]
"""What is registered under a reward's name: called with the run's judges (and, as `judges.settings`, all reward
settings) and the term's own `options`."""
