"""DeepSpeed's settings, and the optimizer for the one case that DeepSpeed does not check itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from owlcap.config import DeepSpeedSection, OptimizerSection
from owlcap.training.deepspeed_config import CheckedAdamW, deepspeed_settings, make_optimizer

OPTIMIZER = OptimizerSection(lr=0.1, weight_decay=0.5, max_grad_norm=2.0)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_somebody_clips_in_every_mode(stage: int, dtype: str) -> None:
    section = DeepSpeedSection(zero_stage=stage)  # type: ignore[arg-type]
    settings = deepspeed_settings(OPTIMIZER, section, dtype)  # type: ignore[arg-type]
    optimizer = make_optimizer(nn.Linear(2, 2), OPTIMIZER, section, dtype)  # type: ignore[arg-type]
    by_deepspeed = settings["gradient_clipping"] == 2.0
    by_optimizer = isinstance(optimizer, CheckedAdamW) and optimizer.max_grad_norm == 2.0
    assert by_deepspeed != by_optimizer
    assert settings.get("bf16", {}).get("enabled", False) == (dtype == "bf16")


def test_frozen_parameters_are_left_out_and_vectors_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    model[0].requires_grad_(False)
    groups = make_optimizer(model, OPTIMIZER, DeepSpeedSection(zero_stage=2), "fp32").param_groups
    assert [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in groups] == [
        (0.5, [(4, 3)]),
        (0.0, [(4,)]),
    ]


def checked_step(gradient: list[float]) -> tuple[torch.Tensor, CheckedAdamW]:
    weights = nn.Parameter(torch.zeros(2))
    optimizer = CheckedAdamW([weights], lr=0.1, betas=(0.0, 0.0), eps=1.0, weight_decay=0.0)
    optimizer.max_grad_norm = 1.0
    weights.grad = torch.tensor(gradient)
    optimizer.step()
    return weights.detach(), optimizer


def test_gradients_are_clipped_by_their_global_norm() -> None:
    weights, optimizer = checked_step([3.0, 4.0])
    assert optimizer._global_grad_norm == pytest.approx(5.0)
    assert not optimizer.overflow
    # clipped to (0.6, 0.8); Adam without memory and with eps 1 moves by lr * g / (|g| + 1)
    assert weights.tolist() == pytest.approx([-0.1 * 0.6 / 1.6, -0.1 * 0.8 / 1.8], rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    weights, optimizer = checked_step([1.0, bad])
    assert optimizer.overflow
    assert optimizer._global_grad_norm == math.inf
    assert weights.tolist() == [0.0, 0.0]
    assert not optimizer.state
