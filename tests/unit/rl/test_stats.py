"""Merging ranks' sums: the figures of one rank that had all the work."""

from __future__ import annotations

import math

import pytest

from owlcap.training.engine import StepStats
from rl.stats import RankStats, merge

STEP = StepStats(step=1, lr=0.1, grad_norm=2.0, skipped=False, num_skipped=0)


def rank(**sums: float) -> RankStats:
    stats = RankStats(num_updates=1, steps=[STEP])
    for name, value in sums.items():
        setattr(stats, name, value)
    return stats


def test_shares_add_up_and_means_are_over_all_tokens() -> None:
    ranks = [
        rank(loss=0.5, kl=0.1, entropy=30.0, clipped=1, num_seen=10, num_tokens=10, mismatch_kl=0.2, policy_s=3.0),
        rank(loss=-0.1, kl=0.3, entropy=30.0, clipped=2, num_seen=20, num_tokens=20, mismatch_kl=0.1, policy_s=2.0),
    ]
    merged = merge(ranks)
    assert merged.loss == pytest.approx(0.4)
    assert merged.kl == pytest.approx(0.4)
    assert merged.entropy == pytest.approx(2.0)
    assert merged.clip_fraction == pytest.approx(0.1)
    assert merged.mismatch_kl == pytest.approx(0.01)
    assert merged.num_tokens == 30
    assert merged.policy_s == 3.0


def test_losses_and_gradients_are_means_over_updates() -> None:
    second = StepStats(step=2, lr=0.05, grad_norm=4.0, skipped=False, num_skipped=0)
    stats = RankStats(num_updates=2, loss=3.0, steps=[STEP, second])
    merged = merge([stats])
    assert merged.loss == 1.5
    assert merged.grad_norm == 3.0
    assert merged.lr == 0.05


def test_a_skipped_update_shows() -> None:
    skipped = StepStats(step=2, lr=0.05, grad_norm=math.inf, skipped=True, num_skipped=1)
    merged = merge([RankStats(num_updates=2, steps=[STEP, skipped])])
    assert merged.num_skipped == 1
    assert math.isinf(merged.grad_norm)


def test_the_largest_mismatch_of_any_rank_counts() -> None:
    assert merge([rank(mismatch_max=0.1), rank(mismatch_max=0.3)]).mismatch_max == 0.3


def test_figures_of_the_rollout_correction_are_over_the_tokens_of_one_pass() -> None:
    merged = merge(
        [
            rank(weight=12.0, num_truncated=3, num_rejected=1, num_tokens=10, num_seen=20),
            rank(weight=15.0, num_truncated=0, num_rejected=5, num_tokens=20, num_seen=40),
        ]
    )
    assert merged.correction_weight == pytest.approx(27 / 30)
    assert merged.truncated_share == pytest.approx(3 / 30)
    assert merged.rejected_share == pytest.approx(6 / 30)
