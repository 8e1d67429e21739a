"""Rollout correction against weights worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from owlcap.config import AlgorithmSection, RolloutCorrectionSection
from rl.correction import correct

# Ratios of two captions: 0.5, 4 and 1 (a padded token after it).
LEARNER = torch.tensor([[math.log(0.5), math.log(4.0)], [0.0, 9.0]])
SAMPLER = torch.zeros(2, 2)
MASK = torch.tensor([[1.0, 1.0], [1.0, 0.0]])


def test_a_tokens_weight_is_its_ratio_cut_at_the_threshold() -> None:
    found = correct(LEARNER, SAMPLER, MASK, RolloutCorrectionSection(importance="token", importance_threshold=2.0))
    torch.testing.assert_close(found.weights_BT, torch.tensor([[0.5, 2.0], [1.0, 0.0]]))
    assert found.weight == pytest.approx(3.5)
    assert found.num_truncated == 1


def test_a_captions_weight_is_the_product_over_its_tokens() -> None:
    cfg = RolloutCorrectionSection(importance="sequence", importance_threshold=3.0)
    found = correct(LEARNER, SAMPLER, MASK, cfg)
    torch.testing.assert_close(found.weights_BT, torch.tensor([[2.0, 2.0], [1.0, 0.0]]))
    assert found.num_truncated == 0


def test_a_token_outside_the_bounds_counts_nothing() -> None:
    found = correct(LEARNER, SAMPLER, MASK, RolloutCorrectionSection(rejection="token_k1", rejection_threshold=3.0))
    torch.testing.assert_close(found.weights_BT, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert found.num_rejected == 1


def test_a_caption_whose_ratio_is_too_large_counts_nothing() -> None:
    found = correct(LEARNER, SAMPLER, MASK, RolloutCorrectionSection(rejection="seq_sum_k1", rejection_threshold=1.5))
    torch.testing.assert_close(found.weights_BT, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert found.num_rejected == 2


@pytest.mark.parametrize(
    ("mode", "loss", "expected"),
    [("async", "vanilla", "token"), ("async", "geo_mean", None), ("sync", "vanilla", None), ("overlap", "gspo", None)],
)
def test_weighting_is_on_by_default_in_async_runs_alone(mode: str, loss: str, expected: str | None) -> None:
    settled = AlgorithmSection(policy_loss=loss).settled(mode)
    assert settled.rollout_correction.importance == expected


def test_a_weighting_that_was_chosen_stays() -> None:
    for chosen in (None, "sequence"):
        cfg = AlgorithmSection(rollout_correction=RolloutCorrectionSection(importance=chosen))
        assert cfg.settled("async").rollout_correction.importance == chosen
