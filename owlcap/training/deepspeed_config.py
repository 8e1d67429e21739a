"""DeepSpeed's settings and the AdamW it drives, from the run's sections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from owlcap.config import DeepSpeedSection, OptimizerSection

Dtype = Literal["fp32", "bf16"]
BUCKET_ELEMENTS = 50_000_000  # of one gradient reduction or parameter gather: 200 MB in fp32


def deepspeed_settings(optimizer: OptimizerSection, deepspeed: DeepSpeedSection, dtype: Dtype) -> dict[str, Any]:
    """DeepSpeed's configuration (the JSON its documentation describes) for one engine.

    Batch sizes are placeholders: the caller decides how many micro batches make a step and scales the
    loss itself (see owlcap.training.engine), so accumulation is 1 here and DeepSpeed divides by nothing.
    Plain fp32 without ZeRO has no gradient check in DeepSpeed; there `CheckedAdamW` clips and checks,
    and DeepSpeed's own clipping is off.
    """
    stage = deepspeed.zero_stage
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        # On a CPU there is no second stream to overlap with, and one order of reductions is reproducible.
        "overlap_comm": torch.cuda.is_available() and stage >= 2,
    }
    if stage == 3:
        zero["stage3_prefetch_bucket_size"] = BUCKET_ELEMENTS
        zero["stage3_param_persistence_threshold"] = 10_000
    if deepspeed.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if deepspeed.offload_params:
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0 if checks_itself(deepspeed, dtype) else optimizer.max_grad_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # its CPU Adam needs a compiler at run time; torch's does not
        "steps_per_print": None,
    }
    if dtype == "bf16":
        settings["bf16"] = {"enabled": True, "check_grad_overflow": True}
        # Stages 0 and 1 cannot accumulate in fp32, and stage 2 with an offloaded optimizer keeps a skipped step's NaN.
        if stage == 3 or (stage == 2 and not deepspeed.offload_optimizer):
            settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings


def checks_itself(deepspeed: DeepSpeedSection, dtype: Dtype) -> bool:
    """Whether the optimizer, and not DeepSpeed, clips the gradients and skips non-finite ones."""
    return deepspeed.zero_stage == 0 and dtype == "fp32"


class CheckedAdamW(torch.optim.AdamW):
    """AdamW that clips by global norm and leaves out a step whose gradients are not finite.

    DeepSpeed reads `overflow` and `_global_grad_norm` from any optimizer that has them.
    """

    max_grad_norm: float = float("inf")
    overflow: bool = False
    _global_grad_norm: float = 0.0

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Clip the (already reduced) gradients and update, or set `overflow` and change nothing."""
        assert closure is None
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in params])
        self.overflow = not bool(torch.isfinite(norm))
        self._global_grad_norm = float("inf") if self.overflow else float(norm)
        if self.overflow:
            return
        torch.nn.utils.clip_grads_with_norm_(params, self.max_grad_norm, norm)
        super().step()


def make_optimizer(
    model: nn.Module, optimizer: OptimizerSection, deepspeed: DeepSpeedSection, dtype: Dtype
) -> torch.optim.AdamW:
    """AdamW over the parameters that require gradients; vectors (norms, biases) get no weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained, "weight_decay": 0.0}]
    if optimizer.weight_decay:
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": optimizer.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    # The engine sets the rate before every step; 0 until then makes DeepSpeed's allocating steps harmless.
    if checks_itself(deepspeed, dtype):
        checked = CheckedAdamW(groups, lr=0.0, betas=optimizer.betas, eps=optimizer.eps, fused=True)
        checked.max_grad_norm = optimizer.max_grad_norm
        return checked
    return torch.optim.AdamW(groups, lr=0.0, betas=optimizer.betas, eps=optimizer.eps, fused=True)
