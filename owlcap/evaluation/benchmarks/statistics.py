"""Standard errors and paired comparisons by bootstrap over items, within their groups.

A resample draws, in each group, as many items as it has, with replacement (Efron's bootstrap, stratified); every
figure is computed anew from it, so that figures which are no means (F1, BLEU) get a standard error too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from owlcap.evaluation.benchmarks.values import Columns, Compute, Interval, ItemScore

NUM_RESAMPLES = 1000
SEED = 0


def columns(scores: Sequence[ItemScore]) -> Columns:
    """Items as arrays, groups and names in their order of appearance."""
    groups: dict[str, list[ItemScore]] = {}
    for score in scores:
        groups.setdefault(score.group, []).append(score)
    table: dict[str, dict[str, np.ndarray]] = {}
    for group, members in groups.items():
        names = dict.fromkeys(name for one in members for name in one.values)
        table[group] = {name: np.array([one.values.get(name, np.nan) for one in members], float) for name in names}
    return table


def mean(values: np.ndarray) -> float | None:
    """Mean of the items that have the value; None where none has."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else None


def plain_mean(values: Sequence[float | None]) -> float | None:
    """Mean of the figures that are there; None where none is."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def with_errors(
    scores: Sequence[ItemScore],
    compute: Compute,
    num_resamples: int = NUM_RESAMPLES,
    counts: Callable[[Mapping[str, float]], bool] = lambda values: True,
) -> dict[str, Interval]:
    """Figures with standard errors. One item says nothing of its group's error: such a group's figures have none.

    Args:
        counts: whether `compute` takes an item with these values into its means.
    """
    table = columns(scores)
    point, sizes = compute(table), Counter(score.group for score in scores if counts(score.values))
    draws = [compute(_drawn(table, places)) for places in _resamples(_sizes(table), num_resamples)] if scores else []
    found: dict[str, Interval] = {}
    for name, value in point.items():
        most = sizes.get(name.rpartition("/")[0], max(sizes.values(), default=0))
        found[name] = _interval(value, [draw.get(name) for draw in draws]) if most > 1 else Interval(value)
    return found


def paired_differences(
    first: Sequence[ItemScore], second: Sequence[ItemScore], compute: Compute, num_resamples: int = NUM_RESAMPLES
) -> dict[str, tuple[Interval, float | None]]:
    """Of each figure second - first, over the items that both have, and its two-sided p by bootstrap.

    p is twice the share of resamples on the other side of 0, the point itself counted as one of them, and at most 1;
    None where there is nothing to draw from.
    """
    shared = {score.id for score in first} & {score.id for score in second}
    sides = [sorted((s for s in side if s.id in shared), key=lambda s: (s.group, s.id)) for side in (first, second)]
    tables = [columns(side) for side in sides]
    points = [compute(table) for table in tables]
    names = [name for name in points[0] if name in points[1]]
    draws: list[list[float | None]] = [[] for _ in names]
    for places in _resamples(_sizes(tables[0]), num_resamples) if len(shared) > 1 else ():
        figures = [compute(_drawn(table, places)) for table in tables]
        for column, name in zip(draws, names, strict=True):
            column.append(_minus(figures[1].get(name), figures[0].get(name)))
    found: dict[str, tuple[Interval, float | None]] = {}
    for name, column in zip(names, draws, strict=True):
        difference = _interval(_minus(points[1][name], points[0][name]), column)
        found[name] = (difference, _two_sided(difference.value, column))
    return found


def _sizes(table: Columns) -> dict[str, int]:
    return {group: len(next(iter(members.values()), ())) for group, members in table.items()}


def _resamples(sizes: Mapping[str, int], count: int) -> Iterator[dict[str, np.ndarray]]:
    """Places of the drawn items by group, `count` times."""
    random = np.random.default_rng(SEED)
    for _ in range(count):
        yield {group: random.integers(0, size, size) for group, size in sizes.items()}


def _drawn(table: Columns, places: Mapping[str, np.ndarray]) -> Columns:
    return {
        group: {name: values[places[group]] for name, values in members.items()} for group, members in table.items()
    }


def _interval(value: float | None, draws: Sequence[float | None]) -> Interval:
    present = [draw for draw in draws if draw is not None]
    if value is None or len(present) < 2:
        return Interval(value)
    low, high = np.quantile(present, [0.025, 0.975])
    return Interval(value, float(np.std(present, ddof=1)), float(low), float(high))


def _two_sided(value: float | None, draws: Sequence[float | None]) -> float | None:
    present = [draw for draw in draws if draw is not None]
    if value is None or not present:
        return None
    beyond = min(sum(draw <= 0 for draw in present), sum(draw >= 0 for draw in present))
    return min(1.0, 2 * (beyond + 1) / (len(present) + 1))


def _minus(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
