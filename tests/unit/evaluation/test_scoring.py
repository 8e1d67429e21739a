"""Scoring beside generation: what is out when generation fails is stopped."""

from __future__ import annotations

import pytest

from owlcap.errors import RolloutError
from owlcap.evaluation.scoring import GroupScoring
from owlcap.types import RolloutGroup, Sample


class Pool:
    """Notes what it is asked for; its references are numbers."""

    def __init__(self) -> None:
        self.submitted: list[int] = []
        self.cancelled: list[int] = []

    def submit(self, group: RolloutGroup) -> int:
        self.submitted.append(len(self.submitted))
        return self.submitted[-1]

    def cancel(self, ref: int) -> None:
        self.cancelled.append(ref)


def group() -> RolloutGroup:
    return RolloutGroup(Sample("clip", "a.mp4", "", "", ""), ())


def test_an_error_cancels_the_groups_that_are_out() -> None:
    pool = Pool()

    def fails_while_two_are_out() -> None:
        with GroupScoring(pool, 1.0) as scoring:
            scoring.submit(group())
            scoring.submit(group())
            raise RolloutError("an engine is gone")

    with pytest.raises(RolloutError, match="an engine is gone"):
        fails_while_two_are_out()
    assert pool.cancelled == [0, 1]


def test_without_an_error_nothing_is_cancelled() -> None:
    pool = Pool()
    with GroupScoring(pool, 1.0) as scoring:
        scoring.submit(group())
    assert pool.cancelled == []
