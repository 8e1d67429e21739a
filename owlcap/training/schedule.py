"""Learning rate of each optimizer step: linear warm-up, then cosine, linear or constant."""

from __future__ import annotations

import math

from owlcap.config import OptimizerSection


def learning_rate(optimizer: OptimizerSection, step: int, total_steps: int) -> float:
    """Learning rate of one optimizer step.

    Warm-up rises linearly over the first ceil(warmup_ratio * total_steps) steps and reaches `lr` on the
    last of them, so that no step is spent at rate 0. The decay then runs from `lr` to
    `min_lr_ratio * lr`, which the step after the last one would have; later steps stay there.

    Args:
        optimizer: peak rate, schedule name, warm-up share and floor.
        step: index of the step, from 0.
        total_steps: steps of the whole run, at least 1.
    """
    warmup = math.ceil(optimizer.warmup_ratio * total_steps)
    if step < warmup:
        return optimizer.lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    if optimizer.schedule == "constant":
        remaining = 1.0
    elif optimizer.schedule == "linear":
        remaining = 1.0 - progress
    else:
        remaining = 0.5 * (1.0 + math.cos(math.pi * progress))
    floor = optimizer.min_lr_ratio
    return optimizer.lr * (floor + (1.0 - floor) * remaining)
