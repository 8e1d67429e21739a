"""Rank correlations, against values worked out by hand."""

from __future__ import annotations

import pytest

from owlcap.evaluation.ranks import kendall, spearman, within_groups


@pytest.mark.parametrize("correlation", [spearman, kendall])
def test_only_the_order_counts(correlation) -> None:
    assert correlation([1, 2, 3], [0.1, 5, 900]) == pytest.approx(1)
    assert correlation([1, 2, 3], [9, 2, -4]) == pytest.approx(-1)


@pytest.mark.parametrize("correlation", [spearman, kendall])
def test_equal_values_have_no_order(correlation) -> None:
    assert correlation([1, 1, 1], [1, 2, 3]) is None
    assert correlation([1], [2]) is None


def test_spearman_gives_equal_values_their_mean_rank() -> None:
    # ranks 1.5 1.5 3 and 1 2 3: covariance 0.75, variances 0.75 and 1
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(0.75**0.5)


def test_kendall_leaves_ties_out_of_either_side() -> None:
    # of three pairs two agree and one is tied in the first
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / (2 * 3) ** 0.5)


def test_groups_without_an_order_are_left_out() -> None:
    assert within_groups(spearman, [([1, 2], [1, 2]), ([1, 1], [1, 2]), ([1, 2], [2, 1])]) == (pytest.approx(0), 2)
