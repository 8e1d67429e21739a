"""Caption Set Equivalence Reward: arithmetic on labelled units (OwlCap section 3.3).

Predicted caption -> units U_1..U_n, reference caption -> units F_1..F_m, each labelled by a judge against the
whole other caption:

    correctness  = (1/n) sum 1[U_i agrees with the reference]      lenient: not contradicted; strict: supported
    completeness = (1/m) sum 1[F_j is covered by the prediction]   supported, in both modes (docs/adr/0002)
    CSER         = correctness + completeness                      in [0, 2]; each ratio rounded to 2 decimals
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

from owlcap.config import CserSection, RewardsSection, Section
from owlcap.errors import ConfigError, JudgeError, one_line
from owlcap.registry import register
from owlcap.types import Judgement, Label, Sample, Score, Tag, Unit, Unscored
from rewards.base import Judge
from rewards.failures import score_each
from rewards.judges import Calls, Judges, check_captions, judge_sections
from rewards.options import parse_options
from rewards.panel import Vote, majority, spread

Match = Literal["lenient", "strict"]
TagWeights = Mapping[Tag, float]

UNWEIGHTED: TagWeights = {"motion": 1.0, "detail": 1.0}
COMBINE: Mapping[str, Callable[[float, float], float]] = {
    "sum": lambda correctness, completeness: correctness + completeness,
    "f1": lambda correctness, completeness: f1(correctness, completeness),
    "product": lambda correctness, completeness: correctness * completeness,
    "min": min,
}


def f1(correctness: float, completeness: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    total = correctness + completeness
    return 2 * correctness * completeness / total if total else 0.0


def agrees(label: Label, match: Match) -> bool:
    """Whether a predicted unit with this label counts as correct."""
    return label == "supported" or (match == "lenient" and label == "not_mentioned")


def share(units: Sequence[Unit], counts: Callable[[Label], bool], weights: TagWeights = UNWEIGHTED) -> float | None:
    """Weighted share of units whose label counts, rounded to 2 decimals; None where no unit has any weight."""
    total = sum(weights[unit.tag] for unit in units)
    if total == 0:
        return None
    return round(sum(weights[unit.tag] for unit in units if counts(unit.label)) / total, 2)


@dataclass(frozen=True, slots=True)
class Ratios:
    """Both directions over one set of units. None: there is no unit to take the share of."""

    correctness: float | None
    completeness: float | None

    @classmethod
    def of(cls, judgement: Judgement, match: Match, weights: TagWeights = UNWEIGHTED, tag: Tag | None = None) -> Ratios:
        """Ratios of all units, or of one tag's."""
        predicted = [unit for unit in judgement.predicted_units if tag in (None, unit.tag)]
        reference = [unit for unit in judgement.reference_units if tag in (None, unit.tag)]
        return cls(
            correctness=share(predicted, lambda label: agrees(label, match), weights),
            completeness=share(reference, lambda label: label == "supported", weights),
        )

    @property
    def f1(self) -> float | None:
        """0 where the prediction has no unit but the reference has: leaving a part out must not hide it."""
        if self.completeness is None:
            return None
        return f1(self.correctness or 0.0, self.completeness)


def score_judgements(judgements: Sequence[Judgement], settings: CserSection, vote: Vote = "mean") -> Score | Unscored:
    """CSER of one caption by one judge or several.

    The value uses the configured weights and combination. The metrics are the paper's unweighted figures, so
    that runs with different weights stay comparable; a tag's figure is absent where there is no unit to count.
    A prediction without units has correctness 0. A reference without (weighted) units cannot be scored against.

    Args:
        judgements: at least one. Several are a panel: their values and figures are voted on, or, by majority,
            their labels are.
    """
    counted = [majority(judgements)] if vote == "majority" and len(judgements) > 1 else judgements
    weights: TagWeights = {"motion": settings.motion_weight, "detail": settings.detail_weight}
    values: list[float] = []
    for judgement in counted:
        weighted = Ratios.of(judgement, settings.match, weights)
        if weighted.completeness is None:
            return Unscored("cser", "the reference caption has no unit that counts")
        values.append(COMBINE[settings.combine](weighted.correctness or 0.0, weighted.completeness))
    average = statistics.median if vote == "median" else statistics.fmean
    figures = [_metrics(judgement, settings.match) for judgement in counted]
    metrics = {
        name: average([figure[name] for figure in figures if name in figure])
        for name in dict.fromkeys(name for figure in figures for name in figure)
    }
    if len(judgements) > 1:
        metrics |= spread(judgements, [_metrics(judgement, settings.match)["cser"] for judgement in judgements])
    return Score(average(values), metrics=metrics, judgements=tuple(judgements))


def _metrics(judgement: Judgement, match: Match) -> dict[str, float]:
    whole = Ratios.of(judgement, match)
    correctness, completeness = whole.correctness or 0.0, whole.completeness or 0.0
    metrics = {
        "cser": correctness + completeness,
        "correctness": correctness,
        "completeness": completeness,
        "f1": f1(correctness, completeness),
        "units": float(len(judgement.predicted_units)),
    }
    for tag in get_args(Tag):
        part = Ratios.of(judgement, match, tag=tag)
        figures = {"correctness": part.correctness, "completeness": part.completeness, "f1": part.f1}
        metrics.update({f"{tag}_{name}": figure for name, figure in figures.items() if figure is not None})
    return metrics


class CserOptions(Section):
    """CSER is configured in the section rewards.cser; its term has no options."""


@register("reward", "cser")
class CserReward:
    """CSER of each caption of a group by the run's judges. A judge's failure leaves that caption unscored.

    Of a panel, more than half must answer; who did not is counted in the metric `judges_missing`.
    """

    name = "cser"
    per_caption = True

    def __init__(self, judges: Judges, options: Mapping[str, Any], members: Sequence[Judge] | None = None) -> None:
        parse_options(CserOptions, options, reward=self.name)
        self._settings = judges.settings
        if self._settings.cser.motion_weight == self._settings.cser.detail_weight == 0:
            raise ConfigError(
                "motion_weight and detail_weight are both 0: no unit counts",
                where="rewards.cser",
                cure="give at least one of them a weight above 0",
            )
        self._members = tuple(members or judges.members)

    @staticmethod
    def calls(settings: RewardsSection) -> Calls:
        """Joint: one a judge. Staged: units of each caption once, two matching calls a judge."""
        asked = sum(judge.kind == "openai" for judge in judge_sections(settings).values())
        if not asked or settings.cser.mode == "joint":
            return Calls(per_caption=asked)
        return Calls(per_caption=1 + 2 * asked, per_reference=1)

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> list[Score | Unscored]:
        """All captions against the sample's reference, at the same time."""
        return await score_each(self.name, captions, partial(self._score, sample))

    async def _score(self, sample: Sample, caption: str) -> Score | Unscored:
        check_captions(caption, sample.reference, self._settings.judge)
        answers = await asyncio.gather(*(self._ask(judge, caption, sample.reference) for judge in self._members))
        judgements = [answer for answer in answers if isinstance(answer, Judgement)]
        problems = [answer for answer in answers if isinstance(answer, JudgeError)]
        if 2 * len(judgements) <= len(answers):
            return Unscored(self.name, one_line(problems[0]))
        score = score_judgements(judgements, self._settings.cser, self._settings.panel_vote)
        if len(self._members) == 1 or isinstance(score, Unscored):
            return score
        return replace(score, metrics={**score.metrics, "judges_missing": float(len(problems))})

    async def _ask(self, judge: Judge, caption: str, reference: str) -> Judgement | JudgeError:
        try:
            return await judge.judge(caption, reference)
        except JudgeError as error:
            return error
