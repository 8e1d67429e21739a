"""Two rewards on the same captions: what the comparison says, from known scores."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from owlcap.evaluation.compare import Rescored, compare
from owlcap.evaluation.saved import SavedGroup
from owlcap.types import RewardBreakdown, ScoredRollout, Unscored
from rewards.adapters.shared import make_sample
from rewards.chat import Usage

CAPTIONS = ("one", "two", "three")


def group(id: str = "a") -> SavedGroup:
    return SavedGroup(make_sample("reference", id), CAPTIONS)


def rescored(name: str, *groups: Sequence[float | None], tag: float = 0.0) -> Rescored:
    def scored(total: float | None, length: int) -> ScoredRollout:
        if total is None:
            return Unscored(name, "no reply")
        return RewardBreakdown(total, {}, {"length_words": float(length), "motion_completeness": tag})

    scores = [[scored(total, length) for length, total in enumerate(totals)] for totals in groups]
    return Rescored(name, scores, Usage(num_requests=3))


def test_rewards_that_differ_in_scale_alone_would_train_alike() -> None:
    report = compare([group()], [rescored("a", [1, 2, 3]), rescored("b", [10, 20, 30])], 3)
    (pair,) = report.pairs
    assert (pair.spearman_within, pair.kendall_within, pair.sign_changes) == (pytest.approx(1), pytest.approx(1), 0)


def test_opposite_rewards_change_the_sign_of_all_but_the_middle_caption() -> None:
    report = compare([group()], [rescored("a", [1, 2, 3]), rescored("b", [3, 2, 1])], 3)
    assert report.pairs[0].sign_changes == pytest.approx(2 / 3)
    assert {one.caption for one in report.disagreements} == {"one", "three"}


def test_order_within_groups_is_told_apart_from_order_over_all() -> None:
    first, second = rescored("a", [1, 2, 3], [11, 12, 13]), rescored("b", [3, 2, 1], [13, 12, 11])
    (pair,) = compare([group("a"), group("b")], [first, second], 0).pairs
    assert pair.spearman_within == pytest.approx(-1)
    assert pair.spearman is not None
    assert pair.spearman > 0


def test_a_caption_that_one_reward_cannot_score_is_in_no_pair_and_counted_with_its_reason() -> None:
    report = compare([group()], [rescored("a", [1, 2, 3]), rescored("b", [1, None, 3])], 3)
    assert report.pairs[0].num_captions == 2
    assert report.rewards[1].unscored == {"b: no reply": 1}


def test_shift_is_second_less_first() -> None:
    report = compare([group()], [rescored("a", [1, 2, 3], tag=0.5), rescored("b", [1, 2, 3], tag=0.75)], 0)
    assert report.pairs[0].shifts == {"motion_completeness": pytest.approx(0.25)}


def test_a_reward_that_likes_long_captions_shows() -> None:
    long, short = compare([group()], [rescored("a", [1, 2, 3]), rescored("b", [3, 2, 1])], 0).rewards
    assert (long.length, short.length) == (pytest.approx(1), pytest.approx(-1))


def test_three_rewards_are_three_pairs() -> None:
    report = compare([group()], [rescored(name, [1, 2, 3]) for name in "abc"], 0)
    assert [(pair.first, pair.second) for pair in report.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_nothing_scored_is_no_figure() -> None:
    report = compare([group()], [rescored("a", [1, 2, 3]), rescored("b", [None, None, None])], 3)
    assert report.rewards[1].mean is None
    assert report.pairs[0].sign_changes is None
