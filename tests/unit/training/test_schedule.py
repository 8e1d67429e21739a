"""The learning rate of each step, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from owlcap.config import OptimizerSection
from owlcap.training.schedule import learning_rate


def rates(optimizer: OptimizerSection, total_steps: int) -> list[float]:
    return [learning_rate(optimizer, step, total_steps) for step in range(total_steps)]


def test_warmup_rises_linearly_and_its_first_step_trains() -> None:
    optimizer = OptimizerSection(lr=1.0, schedule="constant", warmup_ratio=0.4)
    assert rates(optimizer, 10) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_warmup_steps_are_rounded_up() -> None:
    optimizer = OptimizerSection(lr=1.0, schedule="constant", warmup_ratio=0.11)
    assert rates(optimizer, 10)[:3] == [0.5, 1.0, 1.0]


def test_linear_falls_evenly_towards_the_floor() -> None:
    optimizer = OptimizerSection(lr=2.0, schedule="linear", warmup_ratio=0.0, min_lr_ratio=0.5)
    assert rates(optimizer, 4) == [2.0, 1.75, 1.5, 1.25]


def test_cosine_is_half_way_in_the_middle() -> None:
    optimizer = OptimizerSection(lr=1.0, schedule="cosine", warmup_ratio=0.0, min_lr_ratio=0.2)
    # cos(0), cos(60 degrees), cos(90), cos(120) on the way from 1.0 to 0.2
    assert learning_rate(optimizer, 0, 6) == pytest.approx(1.0)
    assert learning_rate(optimizer, 2, 6) == pytest.approx(0.2 + 0.8 * 0.75)
    assert learning_rate(optimizer, 3, 6) == pytest.approx(0.6)
    assert learning_rate(optimizer, 4, 6) == pytest.approx(0.2 + 0.8 * 0.25)


def test_steps_after_the_last_stay_at_the_floor() -> None:
    optimizer = OptimizerSection(lr=1.0, schedule="cosine", warmup_ratio=0.0, min_lr_ratio=0.1)
    assert learning_rate(optimizer, 50, 10) == pytest.approx(0.1)


def test_a_run_of_one_step_trains() -> None:
    assert learning_rate(OptimizerSection(lr=1.0), 0, 1) == 1.0
