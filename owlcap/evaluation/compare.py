"""Several rewards on the same saved captions: do they rank alike, and would they train alike? `owlcap compare`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

from owlcap.config import AlgorithmSection
from owlcap.evaluation.ranks import kendall, spearman, within_groups
from owlcap.evaluation.saved import SavedGroup, json_text
from owlcap.types import RewardBreakdown, ScoredRollout, Unscored
from rewards.chat import Usage
from rl.advantages import batch_advantages

TAG_METRICS = ("motion_correctness", "motion_completeness", "detail_correctness", "detail_completeness")


@dataclass(frozen=True, slots=True)
class RewardFigures:
    """One reward by itself; None where a figure cannot be computed."""

    name: str
    mean: float | None
    length_within: float | None  # Spearman's rho of total and caption length in words, mean over groups
    length: float | None  # the same over all captions
    num_scored: int
    unscored: Mapping[str, int]  # captions by reason
    usage: Usage


@dataclass(frozen=True, slots=True)
class PairFigures:
    """Two rewards on the captions that both scored; None where a figure cannot be computed."""

    first: str
    second: str
    num_captions: int
    num_ranked: int  # groups in which both rewards tell captions apart
    spearman_within: float | None  # mean over these groups
    kendall_within: float | None
    spearman: float | None  # over all captions
    kendall: float | None
    sign_changes: float | None  # share of captions with an advantage above 0 under one and below 0 under the other
    shifts: Mapping[str, float]  # mean of second - first, by tag metric


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A caption that two rewards would train in different directions, or with different force."""

    first: str
    second: str
    id: str
    reference: str
    caption: str
    scores: tuple[float, float]
    advantages: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rewards, all pairs of them, and of every pair the captions whose advantages differ most."""

    rewards: tuple[RewardFigures, ...]
    pairs: tuple[PairFigures, ...]
    disagreements: tuple[Disagreement, ...]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_text(asdict(self), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Rescored:
    """One reward's scores of all groups: one sequence a group, one score a caption."""

    name: str
    scores: Sequence[Sequence[ScoredRollout]]
    usage: Usage

    def totals(self) -> list[list[float | None]]:
        """None where a caption is unscored."""
        return [[s.total if isinstance(s, RewardBreakdown) else None for s in group] for group in self.scores]


@dataclass(frozen=True, slots=True)
class _Both:
    """A caption that both rewards of a pair scored."""

    group: SavedGroup
    caption: str
    scores: tuple[RewardBreakdown, RewardBreakdown]
    advantages: tuple[float, float]

    @property
    def totals(self) -> tuple[float, float]:
        return self.scores[0].total, self.scores[1].total


def compare(groups: Sequence[SavedGroup], rescored: Sequence[Rescored], num_shown: int) -> Comparison:
    """Compare rewards by their scores of the same groups.

    Advantages are those of GRPO with default settings. A caption that a reward leaves unscored is left out of that
    reward's groups, as in training, and out of every pair with it.

    Args:
        num_shown: disagreements of each pair.
    """
    pairs: list[PairFigures] = []
    shown: list[Disagreement] = []
    for first, second in combinations(rescored, 2):
        both = _both(groups, first, second)
        pairs.append(_pair(first.name, second.name, both))
        shown += _disagreements(first.name, second.name, both, num_shown)
    return Comparison(tuple(_alone(one) for one in rescored), tuple(pairs), tuple(shown))


def _alone(one: Rescored) -> RewardFigures:
    scored = [[s for s in group if isinstance(s, RewardBreakdown)] for group in one.scores]
    columns = [([s.total for s in group], [s.metrics["length_words"] for s in group]) for group in scored]
    totals = [total for column, _ in columns for total in column]
    reasons = Counter(f"{s.reward}: {s.reason}" for group in one.scores for s in group if isinstance(s, Unscored))
    return RewardFigures(
        name=one.name,
        mean=fmean(totals) if totals else None,
        length_within=within_groups(spearman, columns)[0],
        length=spearman(totals, [length for _, lengths in columns for length in lengths]),
        num_scored=len(totals),
        unscored=dict(reasons.most_common()),
        usage=one.usage,
    )


def _both(groups: Sequence[SavedGroup], first: Rescored, second: Rescored) -> list[list[_Both]]:
    """Of each group, the captions that both scored."""
    advantages = [_advantages(one) for one in (first, second)]
    kept: list[list[_Both]] = []
    for place, group in enumerate(groups):
        rows = zip(group.captions, first.scores[place], second.scores[place], strict=True)
        kept.append(
            [
                _Both(group, caption, (a, b), (advantages[0][place][row] or 0.0, advantages[1][place][row] or 0.0))
                for row, (caption, a, b) in enumerate(rows)
                if isinstance(a, RewardBreakdown) and isinstance(b, RewardBreakdown)
            ]
        )
    return kept


def _advantages(one: Rescored) -> Sequence[Sequence[float | None]]:
    totals = one.totals()
    return batch_advantages(totals, [[1] * len(group) for group in totals], AlgorithmSection()).values


def _pair(first: str, second: str, both: Sequence[Sequence[_Both]]) -> PairFigures:
    columns = [([one.totals[0] for one in group], [one.totals[1] for one in group]) for group in both]
    all_first, all_second = ([total for column in columns for total in column[side]] for side in (0, 1))
    flat = [one for group in both for one in group]
    spearman_within, num_ranked = within_groups(spearman, columns)
    shifts: dict[str, float] = {}
    for name in TAG_METRICS:
        having = [one.scores for one in flat if all(name in score.metrics for score in one.scores)]
        if having:
            shifts[name] = fmean(b.metrics[name] - a.metrics[name] for a, b in having)
    return PairFigures(
        first=first,
        second=second,
        num_captions=len(flat),
        num_ranked=num_ranked,
        spearman_within=spearman_within,
        kendall_within=within_groups(kendall, columns)[0],
        spearman=spearman(all_first, all_second),
        kendall=kendall(all_first, all_second),
        sign_changes=fmean(one.advantages[0] * one.advantages[1] < 0 for one in flat) if flat else None,
        shifts=shifts,
    )


def _disagreements(first: str, second: str, both: Sequence[Sequence[_Both]], num_shown: int) -> list[Disagreement]:
    flat = [one for group in both for one in group if one.advantages[0] != one.advantages[1]]
    flat.sort(key=lambda one: -abs(one.advantages[0] - one.advantages[1]))
    return [
        Disagreement(
            first, second, one.group.sample.id, one.group.sample.reference, one.caption, one.totals, one.advantages
        )
        for one in flat[:num_shown]
    ]
