"""The held-out judge: CSER of a share of the clips by a judge that gives no reward (rewards.monitors)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from owlcap.types import Sample, Score, Unscored
from rewards.cser import CserReward
from rewards.judges import Judges


class HeldOut:
    """CSER by the held-out judge, as the metric `held_out_cser`. Always of weight 0.

    Which clips are judged follows from their ids alone.
    """

    name = "held_out"
    per_caption = True

    def __init__(self, judges: Judges) -> None:
        self._share = judges.settings.monitors.held_out_share
        self._cser = CserReward(judges, {}, members=(judges.held_out,))

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> list[Score | Unscored]:
        """See Reward. Captions of other clips are unscored, which a reward of weight 0 may be."""
        if zlib.crc32(sample.id.encode()) >= self._share * 2**32:
            return [Unscored(self.name, "the clip is not in rewards.monitors.held_out_share")] * len(captions)
        return [_renamed(outcome) for outcome in await self._cser.score_group(sample, captions)]


def _renamed(outcome: Score | Unscored) -> Score | Unscored:
    if isinstance(outcome, Unscored):
        return outcome
    return Score(outcome.value, {"held_out_cser": outcome.metrics["cser"]}, outcome.judgements)
