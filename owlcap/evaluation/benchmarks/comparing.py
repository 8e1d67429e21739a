"""Two results of one benchmark, item by item: differences with standard errors by paired bootstrap.

Both sides are drawn alike in every resample, so that what makes an item hard or easy for both cancels out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from owlcap.errors import ConfigError
from owlcap.evaluation.benchmarks.catalogue import KINDS
from owlcap.evaluation.benchmarks.showing import show_interval
from owlcap.evaluation.benchmarks.statistics import NUM_RESAMPLES, columns, paired_differences
from owlcap.evaluation.benchmarks.values import BenchmarkResult, Interval
from owlcap.evaluation.saved import json_text
from owlcap.evaluation.table import align


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of both results over the items that both have. `p` is two-sided, by bootstrap."""

    first: float | None
    second: float | None
    difference: Interval
    p: float | None


@dataclass(frozen=True, slots=True)
class ResultComparison:
    """second - first, by figure."""

    benchmark: str
    first: str
    second: str
    headline: str
    num_shared: int
    num_only_first: int
    num_only_second: int
    differences: Mapping[str, Difference]
    notes: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_text(asdict(self), indent=1) + "\n", encoding="utf-8")


def told_apart(
    results: tuple[BenchmarkResult, BenchmarkResult], paths: tuple[Path, Path]
) -> tuple[BenchmarkResult, BenchmarkResult]:
    """The results under names that differ: their own, or else the parts of their paths that do."""
    first, second = results
    if first.name != second.name:
        return results
    whole = [path.absolute() for path in paths]
    shared = os.path.commonpath(whole)
    names = [
        path.name if str(own) == shared else str(own.relative_to(shared))
        for own, path in zip(whole, paths, strict=True)
    ]
    return replace(first, name=names[0]), replace(second, name=names[1])


def compare_results(
    first: BenchmarkResult, second: BenchmarkResult, *, official: bool = False, num_resamples: int = NUM_RESAMPLES
) -> ResultComparison:
    """Compare two results.

    Raises:
        ConfigError: results of different benchmarks, or without an item in common.
    """
    if first.benchmark != second.benchmark:
        raise ConfigError(
            "these are results of different benchmarks",
            where=f"{first.name}: {first.benchmark}, {second.name}: {second.benchmark}",
            allowed="two results of one benchmark",
        )
    ids = [{score.id for score in result.scores} for result in (first, second)]
    shared = ids[0] & ids[1]
    if not shared:
        raise ConfigError(
            "the results have no item in common",
            where=f"{first.name}, {second.name}",
            cure="compare two evaluations of the same clips",
        )
    kind = KINDS[first.benchmark]
    compute = kind.official if official else kind.figures
    sides = [[score for score in result.scores if score.id in shared] for result in (first, second)]
    points = [compute(columns(side)) for side in sides]
    found = paired_differences(sides[0], sides[1], compute, num_resamples)
    return ResultComparison(
        benchmark=first.benchmark,
        first=first.name,
        second=second.name,
        headline="official" if official else "ours",
        num_shared=len(shared),
        num_only_first=len(ids[0] - shared),
        num_only_second=len(ids[1] - shared),
        differences={name: Difference(points[0][name], points[1][name], *pair) for name, pair in found.items()},
        notes=tuple(_notes(first, second)),
    )


def comparison_text(comparison: ResultComparison) -> str:
    """The comparison as a table."""
    header = ("figure", comparison.first, comparison.second, "difference", "95 % interval", "p")
    rows = [(name, *_row(difference)) for name, difference in comparison.differences.items()]
    lines = align([header, *rows])
    lines.append(
        f"{comparison.num_shared} items in both; {comparison.num_only_first} only in {comparison.first}, "
        f"{comparison.num_only_second} only in {comparison.second}, and left out"
    )
    return "\n".join([*lines, *comparison.notes, "± and intervals by paired bootstrap over items, within their groups"])


def _row(found: Difference) -> tuple[str, ...]:
    gap = found.difference
    shown = show_interval(gap) if gap.value is None or gap.value < 0 else f"+{show_interval(gap)}"
    interval = "-" if gap.low is None or gap.high is None else f"[{gap.low:+.3f}, {gap.high:+.3f}]"
    return (_number(found.first), _number(found.second), shown, interval, _number(found.p))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _notes(first: BenchmarkResult, second: BenchmarkResult) -> list[str]:
    notes = [f"{result.name} is INCOMPLETE" for result in (first, second) if not result.is_complete]
    if first.judge != second.judge:
        notes.append(
            f"different judges, so the figures are not comparable: {first.judge or '-'} and {second.judge or '-'}"
        )
    return notes
