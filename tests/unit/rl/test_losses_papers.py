"""Losses that TRL does not have, against their papers' formulas written a second time: value and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from owlcap.config import AlgorithmSection
from rl.losses import BatchSize, policy_loss

B, T = 4, 6
LENGTHS = torch.tensor([6, 3, 1, 4])
MASK = (torch.arange(T)[None, :] < LENGTHS[:, None]).float()
A = torch.tensor([1.5, -0.5, 0.25, -1.25])[:, None]


def draws(seed: int) -> torch.Tensor:
    return -torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) * 3


def mean(cells: torch.Tensor) -> torch.Tensor:
    return ((cells * MASK).sum(1) / MASK.sum(1)).mean()


def ours(current: torch.Tensor, old: torch.Tensor, **settings: Any) -> torch.Tensor:
    size = BatchSize(num_sequences=B, num_tokens=int(LENGTHS.sum()))
    cfg = AlgorithmSection(kl_beta=0.0, **settings)
    return policy_loss(current, old, None, A[:, 0], MASK, cfg=cfg, size=size, max_new_tokens=8).loss


def gradient(loss: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, of)[0]


def assert_same_gradient(mine: torch.Tensor, theirs: torch.Tensor, current: torch.Tensor) -> None:
    found = gradient(mine, current)
    assert found.abs().max() > 0
    torch.testing.assert_close(found, gradient(theirs, current), atol=1e-6, rtol=1e-5)


def test_gpg_is_the_plain_policy_gradient() -> None:
    current, old = draws(0).requires_grad_(), draws(1)
    mine, theirs = ours(current, old, policy_loss="gpg"), mean(-A * current)
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert_same_gradient(mine, theirs, current)


def test_dro_penalizes_the_squared_log_ratio() -> None:
    current, old = draws(0).requires_grad_(), draws(1)
    mine = ours(current, old, policy_loss="dro", dro_beta=0.5)
    theirs = mean(0.25 * (current - old) ** 2 - A * current)
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert_same_gradient(mine, theirs, current)


@pytest.mark.parametrize("name", ["dppo_tv", "dppo_kl"])
def test_dppo_leaves_out_tokens_that_went_too_far_the_rewarded_way(name: str) -> None:
    # arXiv 2602.04879: gradient of M r A; M is 0 where the step goes on away from the old policy beyond a divergence.
    current, old = draws(0).requires_grad_(), draws(1)
    p, q = current.detach().exp(), old.exp()
    tv, kl = (p - q).abs(), q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    goes_away = ((A > 0) & (p > q)) | ((A < 0) & (p < q))
    left_out = goes_away & ((tv if name == "dppo_tv" else kl) > 0.1)
    assert 0 < (left_out * MASK).sum() < (goes_away * MASK).sum()
    theirs = mean(-A * (current - old).exp() * (~left_out))
    assert_same_gradient(ours(current, old, policy_loss=name, clip_ratio=0.1), theirs, current)


def test_gmpo_is_the_geometric_mean_of_clipped_ratios() -> None:
    # arXiv 2507.20673, equation 4: clipped to (exp(-eps), exp(eps)), the worse of the two for the advantage's sign.
    current, old = draws(0).requires_grad_(), draws(1)
    ratio = (current - old).exp()
    clipped = ratio.clamp(float(torch.tensor(-0.4).exp()), float(torch.tensor(0.4).exp()))
    worse = torch.where(A > 0, torch.minimum(ratio, clipped), torch.maximum(ratio, clipped))
    product = torch.where(MASK > 0, worse, torch.ones_like(worse)).prod(1)
    theirs = -(product ** (1 / MASK.sum(1)) * A[:, 0]).mean()
    mine = ours(current, old, policy_loss="geo_mean", clip_ratio=0.4)
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert_same_gradient(mine, theirs, current)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"policy_loss": "geo_mean", "loss_aggregation": "token-mean"}, "always a mean over sequences"),
        ({"policy_loss": "sapo", "loss_aggregation": "token-mean"}, "always a mean over sequences"),
        ({"policy_loss": "geo_mean", "rollout_correction": {"importance": "token"}}, "takes no rollout_correction"),
        ({"policy_loss": "dro"}, "need one another"),
        ({"dro_beta": 0.5}, "need one another"),
        ({"kl_in": "reward", "kl_estimator": "k3+"}, "leave the \\+ out"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        AlgorithmSection.model_validate(settings)
