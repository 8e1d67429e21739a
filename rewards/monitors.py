"""Hack monitors: figures that move when a policy games its reward, and a warning where one crosses its threshold.

    length_correlation  Pearson's r of reward and tokens, both less their group's mean, over all groups of a step
    repetition          mean share of phrases said before (rewards.text.repetition)
    unit_ratio          mean units of a prediction for each unit of its reference
    unit_growth         unit_ratio against its mean over the run's first FIRST_STEPS steps
    judge_spread        mean over rollouts, of a panel (rewards.panel.spread)
    judge_disagreement  the same
    held_out_gap        mean CSER of the reward's judges less that of the held-out judge, where both gave one

A figure that a step does not have is absent, and leaves its warning as it is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from owlcap.config import MonitorsSection
from owlcap.types import RewardBreakdown, ScoredGroup

FIRST_STEPS = 10  # what unit_growth compares with
MIN_ROLLOUTS = 3  # of a correlation
MEANING: Mapping[str, str] = {
    "length_correlation": "reward goes with length, not with content",
    "repetition": "captions repeat themselves",
    "unit_ratio": "captions are split into many more statements than their references",
    "unit_growth": "captions hold many more statements than when the run began",
    "judge_spread": "the panel's judges give one caption different scores",
    "judge_disagreement": "the panel's judges label the same statements differently",
    "held_out_gap": "the reward's judges like the captions better than a judge that the policy was not trained on",
}


@dataclass(frozen=True, slots=True)
class MonitorState:
    """What the monitors remember from step to step; part of a checkpoint."""

    num_first: int = 0  # steps with units among the run's first
    first_unit_ratios: float = 0.0  # their sum
    warned: tuple[str, ...] = ()  # figures above their threshold


@dataclass(frozen=True, slots=True)
class Watched:
    """Of one step: figures as they are logged, new warnings, and the state after it."""

    values: Mapping[str, float]
    warnings: tuple[str, ...]
    state: MonitorState


def watch(groups: Sequence[ScoredGroup], thresholds: MonitorsSection, state: MonitorState) -> Watched:
    """Figures of a step's groups. A threshold warns once, until its figure falls back to it or below."""
    scores = [score for group in groups for score in group.scores if isinstance(score, RewardBreakdown)]
    figures: dict[str, float | None] = {
        "length_correlation": length_correlation(groups),
        "repetition": _mean(score.metrics["repetition"] for score in scores if "repetition" in score.metrics),
        "unit_ratio": unit_ratio(scores),
        "judge_spread": _mean(score.metrics["judge_spread"] for score in scores if "judge_spread" in score.metrics),
        "judge_disagreement": _mean(
            score.metrics["judge_disagreement"] for score in scores if "judge_disagreement" in score.metrics
        ),
        "held_out_gap": _mean(
            score.metrics["cser"] - score.metrics["held_out_cser"]
            for score in scores
            if {"cser", "held_out_cser"} <= score.metrics.keys()
        ),
    }
    ratio = figures["unit_ratio"]
    if ratio is not None and state.num_first < FIRST_STEPS:
        state = replace(state, num_first=state.num_first + 1, first_unit_ratios=state.first_unit_ratios + ratio)
    elif ratio is not None and state.first_unit_ratios > 0:
        figures["unit_growth"] = ratio / (state.first_unit_ratios / state.num_first)
    known = {name: value for name, value in figures.items() if value is not None}
    limits = {name: limit for name in MEANING if (limit := getattr(thresholds, name)) is not None}
    above = {name for name, limit in limits.items() if name in known and _size(name, known[name]) > limit}
    new = [name for name in MEANING if name in above and name not in state.warned]
    warnings = tuple(
        f"monitor/{name} is {known[name]:.3g}, beyond rewards.monitors.{name}={limits[name]:g}: {MEANING[name]}"
        for name in new
    )
    warned = tuple(
        name for name in MEANING if name in above or (name in state.warned and name not in known and name in limits)
    )
    values = {f"monitor/{name}": value for name, value in known.items()}
    return Watched(values, warnings, replace(state, warned=warned))


def length_correlation(groups: Sequence[ScoredGroup]) -> float | None:
    """Pearson's r of reward and number of tokens within groups, pooled; None where either does not vary.

    Each value is taken less its group's mean, so that clips with long captions and high rewards count for nothing.
    """
    rewards: list[float] = []
    lengths: list[float] = []
    for group in groups:
        scored = [
            (total, len(completion.token_ids))
            for total, completion in zip(group.totals, group.group.completions, strict=True)
            if total is not None
        ]
        if len(scored) < 2:
            continue
        rewards += _centred([total for total, _ in scored])
        lengths += _centred([length for _, length in scored])
    if len(rewards) < MIN_ROLLOUTS:
        return None
    try:
        return statistics.correlation(rewards, lengths)
    except statistics.StatisticsError:  # one of them does not vary
        return None


def unit_ratio(scores: Iterable[RewardBreakdown]) -> float | None:
    """Mean of predicted units for each reference unit, over CSER's judgements; None where there are none."""
    return _mean(
        len(judgement.predicted_units) / len(judgement.reference_units)
        for score in scores
        if "cser" in score.parts
        for judgement in score.parts["cser"].judgements
        if judgement.reference_units
    )


def _centred(values: Sequence[float]) -> list[float]:
    """Less their mean; exactly 0 where all are equal, so that rounding does not pass for variance."""
    if len(set(values)) == 1:
        return [0.0] * len(values)
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]


def _size(name: str, value: float) -> float:
    """What is compared with the threshold: short captions can be a trick as well as long ones."""
    return abs(value) if name == "length_correlation" else value


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None
