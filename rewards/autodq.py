"""AutoDQ: events of both captions, strict entailment both ways (Tarsier, arXiv 2407.00634; VidBridge-R1).

    precision = supported predicted events / predicted events
    recall    = supported reference events / reference events

A contradicted and a neutral event count the same: not at all. The published script gives an empty list of events
the ratio 1; here a caption without events has precision 0, so that saying nothing does not pay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from owlcap.config import RewardsSection, Section
from owlcap.registry import register
from owlcap.types import Sample, Score, Unscored
from rewards.cser import f1
from rewards.events import EventJudge, entailed
from rewards.failures import score_each
from rewards.judges import Calls, Judges, check_captions
from rewards.options import parse_options

VIDBRIDGE_PRECISION_WEIGHT = 0.5


class AutoDqOptions(Section):
    """How the two ratios make the value: f1 in [0, 1], or VidBridge's recall + 0.5 * precision in [0, 1.5]."""

    combine: Literal["f1", "vidbridge"] = "f1"


@register("reward", "autodq")
class AutoDqReward:
    """AutoDQ of each caption of a group. A judge's failure leaves that caption unscored."""

    name = "autodq"
    per_caption = True

    def __init__(self, judges: Judges, options: Mapping[str, Any]) -> None:
        self._combine = parse_options(AutoDqOptions, options, reward=self.name).combine
        self._limits = judges.settings.judge
        self._judge = EventJudge(judges.model, judges.settings.prompts)

    @staticmethod
    def calls(settings: RewardsSection) -> Calls:
        """Events of each caption once; two matching calls a prediction."""
        return Calls(per_caption=3, per_reference=1)

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> list[Score | Unscored]:
        """All captions against the sample's reference, at the same time."""
        return await score_each(self.name, captions, partial(self._score, sample.reference))

    async def _score(self, reference: str, caption: str) -> Score | Unscored:
        check_captions(caption, reference, self._limits)
        judgement = await self._judge.judge(caption, reference)
        recall = entailed(judgement.reference_units)
        if recall is None:
            return Unscored(self.name, "the reference caption has no events")
        precision = entailed(judgement.predicted_units) or 0.0
        figures = {
            "autodq_precision": precision,
            "autodq_recall": recall,
            "autodq_f1": f1(precision, recall),
            "autodq_events": float(len(judgement.predicted_units)),
        }
        vidbridge = recall + VIDBRIDGE_PRECISION_WEIGHT * precision
        value = figures["autodq_f1"] if self._combine == "f1" else vidbridge
        return Score(value, figures, (judgement,))
