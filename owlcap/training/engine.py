"""One rank's training engine: DeepSpeed with stated conventions for scaling, skipping and scheduling.

Conventions, the same for SFT and RL:
  - The caller computes this rank's SHARE of the global mean, e.g. sum of this rank's token losses divided
    by the number of tokens of the whole step over ALL ranks and micro batches. `backward` adds up:
    gradients are SUMMED over micro batches and over ranks. DeepSpeed averages over ranks; `backward`
    multiplies by their number once, so nobody else has to.
  - All ranks call `backward` equally often in a step, with `last=True` on the last micro batch; then `step`.
  - A loss or a gradient that is not finite on any rank skips the update on every rank: weights and
    optimizer stay, the schedule goes on. More than `max_skipped_in_a_row` such steps raise TrainingError.
  - Computations run inside `run(compute)`, the forward pass of the engine's root module, so that ZeRO-3
    gathers parameters whichever parts of the policy `compute` calls. Call modules, not their weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from owlcap.config import DeepSpeedSection, OptimizerSection
from owlcap.errors import TrainingError
from owlcap.models.lora import FACTOR, Stored, stored_weights
from owlcap.training.deepspeed_config import Dtype, deepspeed_settings, make_optimizer
from owlcap.training.schedule import learning_rate

T = TypeVar("T")
PREFIX = "policy."  # the root module's name for the model
STATE_TAG = "engine"  # DeepSpeed's sub-folder of a checkpoint


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one optimizer step did; equal on all ranks."""

    step: int  # optimizer steps tried so far, this one included
    lr: float
    grad_norm: float  # global norm before clipping; inf when skipped
    skipped: bool
    num_skipped: int  # since the start of the run


@dataclass(frozen=True, slots=True)
class ParamShape:
    """Name and full shape of one parameter, whether it is trained, for checkpoint checks."""

    name: str
    shape: tuple[int, ...]
    trained: bool


class _Root(nn.Module):
    """The module DeepSpeed wraps: its forward runs any computation on the policy."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, compute: Callable[[nn.Module], Any]) -> Any:
        return compute(self.policy)


class TrainingEngine:
    """DeepSpeed around one policy. Needs an initialised torch.distributed (owlcap.training.worker).

    Args:
        model: the policy, in its training dtype; only parameters that require gradients are optimized.
        total_steps: optimizer steps of the whole run, for the schedule.
        max_skipped_in_a_row: consecutive non-finite steps allowed before TrainingError.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerSection,
        deepspeed: DeepSpeedSection,
        *,
        dtype: Dtype,
        total_steps: int,
        max_skipped_in_a_row: int = 5,
    ) -> None:
        self.module = model
        self.params = tuple(ParamShape(n, tuple(p.shape), p.requires_grad) for n, p in model.named_parameters())
        self._has_lora = any(FACTOR in param.name for param in self.params)  # then frozen weights are not checkpointed
        self.total_steps = total_steps
        self.max_skipped_in_a_row = max_skipped_in_a_row
        self.num_steps = 0
        self.num_skipped = 0
        self._skipped_in_a_row = 0
        self._section = optimizer
        self._zero_stage = deepspeed.zero_stage
        self._moves_states = deepspeed.zero_stage in (1, 2)
        import deepspeed as ds  # here and not at the top: the driver imports this module and has no use for it

        root = _Root(model)
        self._engine, *_ = ds.initialize(
            model=root,
            optimizer=make_optimizer(model, optimizer, deepspeed, dtype),
            config=deepspeed_settings(optimizer, deepspeed, dtype),
            dist_init_required=False,
        )
        if deepspeed.zero_stage == 0 and dtype == "bf16":
            # Its fp32 wrapper makes an empty step to allocate state, which would count as Adam's first one.
            self._engine.basic_optimizer.state.clear()  # type: ignore[union-attr]

    @property
    def device(self) -> torch.device:
        """Where batches belong."""
        return torch.device(self._engine.device)  # type: ignore[arg-type]

    def run(self, compute: Callable[[nn.Module], T]) -> T:
        """`compute(model)` as a forward pass. It returns a tensor or a tuple of tensors."""
        return self._engine(compute)

    def train(self) -> None:
        """Training mode (gradient checkpointing, dropout)."""
        self._engine.train()

    def eval(self) -> None:
        """Evaluation mode."""
        self._engine.eval()

    def backward(self, loss_share: torch.Tensor, *, last: bool) -> None:
        """Add the gradients of this rank's share of the global mean loss (see the conventions above).

        Args:
            loss_share: scalar with a graph.
            last: whether this is the step's last micro batch; all ranks agree on it.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        # A non-finite loss may have finite gradients; 0 * loss turns the factor, and so all of them, into NaN,
        # which the gradient check sees on every rank after the reduction.
        factor = dist.get_world_size() + 0.0 * loss_share.detach()
        self._engine.backward(loss_share * factor, scale_wrt_gas=False)

    def step(self) -> StepStats:
        """Clip, update, advance the schedule.

        Raises:
            TrainingError: too many steps in a row had a loss or gradient that is not finite.
        """
        lr = learning_rate(self._section, self.num_steps, self.total_steps)
        # Asked for anew: loading a checkpoint replaces the groups.
        for group in self._engine.optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = lr
        self._engine.step()
        skipped = not self._engine.was_step_applied()
        norm = float(self._engine.get_global_grad_norm() or 0.0)
        self.num_steps += 1
        self.num_skipped += skipped
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row > self.max_skipped_in_a_row:
            raise TrainingError(
                f"loss or gradients were not finite in {self._skipped_in_a_row} optimizer steps in a row",
                where=f"optimizer step {self.num_steps}",
                allowed=f"at most {self.max_skipped_in_a_row} in a row; each is left out",
                cure="lower optimizer.lr, raise optimizer.warmup_ratio, or train in model.dtype=fp32; "
                "resume from the last checkpoint",
            )
        return StepStats(self.num_steps, lr, math.inf if skipped else norm, skipped, self.num_skipped)

    def gathered_state(
        self, bucket_bytes: int = 512 * 2**20, *, on_device: bool = False
    ) -> Iterator[list[tuple[str, torch.Tensor]]]:
        """All weights, bucket by bucket, under the plain model's `state_dict` names (tied ones included; LoRA merged).

        Every rank must exhaust the iterator; rank 0 gets (name, tensor) pairs, the others empty lists. Tensors are on
        the CPU unless `on_device`, may share the live weight's memory and are valid until the next bucket is asked for.
        """
        from deepspeed import zero

        with torch.no_grad():
            for bucket in _buckets(self.module, bucket_bytes):
                parts = [part for one in bucket for part in one.parts if isinstance(part, nn.Parameter)]
                with zero.GatheredParameters(parts, enabled=self._zero_stage == 3):
                    mine = bucket if dist.get_rank() == 0 else []
                    yield [(one.name, one.value() if on_device else one.value().cpu()) for one in mine]

    def offload(self) -> None:
        """Move weights, gradients and optimizer state to the CPU's memory; nothing may be called until `reload`.

        DeepSpeed can at ZeRO-1 and ZeRO-2; elsewhere this does nothing. (At ZeRO-3 it takes its own Adam alone, and
        fails where some weights are frozen; offload_params and offload_optimizer keep them off the GPU for good.)
        """
        if self._moves_states:
            self._engine.offload_states(pin_memory=torch.cuda.is_available())

    def reload(self) -> None:
        """Undo `offload`."""
        if self._moves_states:
            self._engine.reload_states()

    def save(self, folder: Path) -> None:
        """Write this rank's part of weights, optimizer and counters; all ranks call it (no RNG: worker)."""
        counters = {"num_steps": self.num_steps, "num_skipped": self.num_skipped, "in_a_row": self._skipped_in_a_row}
        self._engine.save_checkpoint(
            str(folder),
            tag=STATE_TAG,
            client_state={"owlcap": counters},
            save_latest=False,
            exclude_frozen_parameters=self._has_lora,
        )

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote, with the same ranks and ZeRO stage; all ranks call it."""
        _, client = self._engine.load_checkpoint(str(folder), tag=STATE_TAG, load_module_strict=not self._has_lora)
        assert client is not None
        counters = client["owlcap"]
        self.num_steps, self.num_skipped = counters["num_steps"], counters["num_skipped"]
        self._skipped_in_a_row = counters["in_a_row"]


def _buckets(model: nn.Module, bucket_bytes: int) -> Iterator[list[Stored]]:
    """The model's weights, cut into lists of about `bucket_bytes`."""
    bucket: list[Stored] = []
    size = 0
    for one in stored_weights(model):
        numel = getattr(one.tensor, "ds_numel", one.tensor.numel())  # ZeRO-3 keeps the full size here
        bucket.append(one)
        size += numel * one.tensor.element_size()
        if size >= bucket_bytes:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
