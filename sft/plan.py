"""What an SFT run will do, in numbers: for the trainer, and for `--dry-run` before anything starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from owlcap.config import DataSection, SftRun, SftSection
from owlcap.data.overlays import check_overlays
from owlcap.data.row_file import Joined, RowFile
from owlcap.data.rows import read_rows
from owlcap.models.attention import described
from owlcap.types import Sample


@dataclass(frozen=True, slots=True)
class SftPlan:
    """The run in numbers."""

    num_train: int
    num_validation: int
    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, cfg: SftRun) -> SftPlan:
        """Read the rows and count."""
        train, validation = read_samples(cfg.data, cfg.sft, cfg.seed)
        check_overlays(train, cfg.motion, cfg.data)
        steps = math.ceil(len(train) / cfg.sft.batch_size)
        total = steps * cfg.sft.num_epochs
        return cls(len(train), len(validation), steps, min(total, cfg.sft.max_steps or total))


def read_samples(data: DataSection, sft: SftSection, seed: int) -> tuple[Sequence[Sample], list[Sample]]:
    """Training rows, which stay in their file, and validation rows, cut to `num_validation`.

    Training rows are all captions, then `qa_share` of the rows of `sft.qa`, drawn by `seed`: the same in all epochs.
    """
    validation = read_rows(data.validation, data)[: sft.num_validation] if data.validation else []
    train = RowFile(data.train, data)
    if sft.qa is not None:
        asked = RowFile(sft.qa, DataSection(train=sft.qa))  # with their own questions, answers as targets
        drawn = np.random.default_rng(seed).permutation(len(asked))[: round(sft.qa_share * len(asked))]
        return Joined(train, [asked[i] for i in sorted(drawn)]), validation
    return train, validation


def render_plan(cfg: SftRun) -> str:
    """The plan as text; without the data, without the run's length."""
    c, batch = cfg.cluster, cfg.sft.batch_size
    lines = [
        f"learner: {c.learner_ranks} ranks of {c.cpus_per_learner:g} CPUs and {c.gpus_per_learner} GPUs each, "
        f"DeepSpeed ZeRO-{cfg.deepspeed.zero_stage}, {cfg.model.dtype}; {cfg.sft.tokens_per_micro_batch:,} tokens a "
        f"forward; {described(cfg.model.attention, c.gpus_per_learner > 0)}",
        f"sequences a step: {batch} ({batch // c.learner_ranks} a rank)",
    ]
    if Path(cfg.data.train).is_file():
        plan = SftPlan.of(cfg)
        lines.append(
            f"steps: {plan.total_steps:,} ({plan.num_train:,} clips, {plan.steps_per_epoch:,} steps an epoch, "
            f"{cfg.sft.num_epochs} epochs); validation on {plan.num_validation:,} clips"
        )
    else:
        lines.append(f"steps: unknown, data.train ({cfg.data.train}) is not there yet")
    return "\n".join(lines)
