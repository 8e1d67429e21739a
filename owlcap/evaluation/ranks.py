"""Rank correlations. None where a side has fewer than two different values."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

import numpy as np

Correlation = Callable[[Sequence[float], Sequence[float]], float | None]


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rho: Pearson's correlation of the ranks, equal values sharing their mean rank."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return statistics.correlation(_ranks(first), _ranks(second))


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b, which allows for ties."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    a, b = np.asarray(first), np.asarray(second)
    same = ties_a = ties_b = 0
    for place in range(len(a) - 1):  # a row of pairs at a time: memory stays linear
        signs_a, signs_b = np.sign(a[place + 1 :] - a[place]), np.sign(b[place + 1 :] - b[place])
        same += int((signs_a * signs_b).sum())
        ties_a += int((signs_a == 0).sum())
        ties_b += int((signs_b == 0).sum())
    pairs = len(a) * (len(a) - 1) // 2
    return same / ((pairs - ties_a) * (pairs - ties_b)) ** 0.5


def within_groups(
    correlation: Correlation, groups: Iterable[tuple[Sequence[float], Sequence[float]]]
) -> tuple[float | None, int]:
    """Mean over the groups that have a correlation, and their number."""
    values = [value for first, second in groups if (value := correlation(first, second)) is not None]
    return (statistics.fmean(values) if values else None), len(values)


def _ranks(values: Sequence[float]) -> list[float]:
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - (counts - 1) / 2)[place]).tolist()
