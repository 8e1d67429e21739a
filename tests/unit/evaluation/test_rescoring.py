"""Saved captions scored again: how many at a time, and the standard errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

import pytest

from owlcap.config import RewardsSection, RewardTerm
from owlcap.evaluation.rescoring import ClusteredMean, score_groups
from owlcap.evaluation.saved import SavedGroup
from rewards.adapters.shared import make_sample
from rewards.suite import make_suite


def clustered(groups: Sequence[Sequence[float]]) -> ClusteredMean:
    column = ClusteredMean()
    for group in groups:
        column.add(group)
    return column


def test_with_one_caption_a_group_it_is_the_usual_standard_error() -> None:
    values = [0.2, 0.5, 0.9, 0.4]
    column = clustered([[value] for value in values])
    assert column.mean == pytest.approx(fmean(values))
    assert column.standard_error == pytest.approx(stdev(values) / 2)


def test_repeating_a_caption_within_its_group_makes_nothing_more_certain() -> None:
    values = [0.2, 0.5, 0.9, 0.4]
    once, often = clustered([[v] for v in values]), clustered([[v] * 8 for v in values])
    assert often.standard_error == pytest.approx(once.standard_error)


def test_one_group_has_no_standard_error() -> None:
    assert clustered([[1.0, 2.0, 3.0]]).standard_error is None


def test_rows_are_read_only_as_far_as_there_is_room() -> None:
    read = scored = most = 0

    def groups() -> Iterator[SavedGroup]:
        nonlocal read, most
        for number in range(50):
            read += 1
            most = max(most, read - scored)
            yield SavedGroup(make_sample("A dog runs.", str(number)), ("A dog runs.",))

    def each(*_: object) -> None:
        nonlocal scored
        scored += 1

    suite = make_suite(RewardsSection(terms=[RewardTerm(name="length")]))
    asyncio.run(score_groups(suite, groups(), 4, each))
    assert scored == 50
    assert most <= 5  # four being scored, one that waits
