"""Completeness and hallucination rates over atomic statements (video-SALMONN 2, arXiv 2506.15220).

    missed        statements of the reference that the caption does not mention
    incorrect     statements of the caption that the reference contradicts
    hallucinated  statements of the caption that the reference does not mention
    error rate  = (missed + incorrect + hallucinated) / statements of the reference

A reference statement that the caption contradicts is counted once, on the caption's side. The statements are the
units of staged CSER, asked for in the same words: with that reward in the same run they cost no further call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from owlcap.config import RewardsSection, Section
from owlcap.registry import register
from owlcap.types import Label, Sample, Score, Unit, Unscored
from rewards.base import Judge
from rewards.failures import score_each
from rewards.judges import Calls, Judges, check_captions
from rewards.lexical import LexicalJudge
from rewards.options import parse_options
from rewards.staged import StagedJudge


class HallucinationOptions(Section):
    """The error rate has no options."""


@register("reward", "hallucination")
class HallucinationReward:
    """1 - error rate of each caption of a group: 1 is faultless, and padding can make it negative without bound."""

    name = "hallucination"
    per_caption = True

    def __init__(self, judges: Judges, options: Mapping[str, Any]) -> None:
        parse_options(HallucinationOptions, options, reward=self.name)
        settings = judges.settings
        self._limits = settings.judge
        self._judge: Judge = (
            LexicalJudge()
            if settings.judge.kind == "lexical"
            else StagedJudge(judges.model, judges.model, settings.prompts)
        )

    @staticmethod
    def calls(settings: RewardsSection) -> Calls:
        """Those of staged CSER with one judge; the lexical judge takes none."""
        return Calls(per_caption=3, per_reference=1) if settings.judge.kind == "openai" else Calls()

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> list[Score | Unscored]:
        """All captions against the sample's reference, at the same time."""
        return await score_each(self.name, captions, partial(self._score, sample.reference))

    async def _score(self, reference: str, caption: str) -> Score | Unscored:
        check_captions(caption, reference, self._limits)
        judgement = await self._judge.judge(caption, reference)
        num_statements = len(judgement.reference_units)
        if not num_statements:
            return Unscored(self.name, "the reference caption makes no statements")
        rates = {
            "missed_rate": _count(judgement.reference_units, "not_mentioned") / num_statements,
            "incorrect_rate": _count(judgement.predicted_units, "contradicted") / num_statements,
            "hallucinated_rate": _count(judgement.predicted_units, "not_mentioned") / num_statements,
        }
        error_rate = sum(rates.values())
        return Score(1.0 - error_rate, {**rates, "error_rate": error_rate}, (judgement,))


def _count(units: Sequence[Unit], label: Label) -> int:
    return sum(unit.label == label for unit in units)
