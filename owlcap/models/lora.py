"""LoRA by peft: small trained factors beside the language model's frozen weights.

Where weights leave the learner (to the engines, into an exported folder) they are merged, W + scale * B A, under the
plain model's names, so that nothing else knows of adapters. The live weights are never merged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from owlcap.config import LoraSection
from owlcap.errors import ModelError

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

BASE = ".base_layer."  # what peft puts into the name of a weight with an adapter
FACTOR = ".lora_"
ADAPTER = "default"


def add_lora(policy: Qwen2_5_VLForConditionalGeneration, lora: LoraSection) -> None:
    """Give the language model's linear layers of these names adapters, and freeze everything else in the policy.

    Raises:
        ModelError: no layer has one of the names.
    """
    from peft import LoraConfig, inject_adapter_in_model

    paths = [
        name for name, module in policy.named_modules() if ".language_model." in name and isinstance(module, nn.Linear)
    ]
    wrong = [layer for layer in lora.layers if not any(path.endswith(f".{layer}") for path in paths)]
    if wrong:
        raise ModelError(
            f"no linear layer of the language model is called {', '.join(wrong)}",
            where="model.lora.layers",
            allowed=", ".join(sorted({path.rpartition(".")[2] for path in paths})),
            cure="correct the name",
        )
    names = "|".join(map(re.escape, lora.layers))
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=rf".*\.language_model\..*\.({names})",
    )
    inject_adapter_in_model(config, policy, adapter_name=ADAPTER)


def base_fingerprint(policy: nn.Module) -> str:
    """Name of the weights beside the adapters: of every frozen one its name, type, shape and the sum of its bits.

    Summed on the weights' device, at about the speed of its memory. Ask before ZeRO-3 partitions the policy.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, weight in policy.named_parameters():
        if not weight.requires_grad:
            total = int(weight.detach().contiguous().view(torch.int16).sum(dtype=torch.int64))
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} {total}".encode())
    return digest.hexdigest()


@contextmanager
def without_lora(policy: nn.Module) -> Iterator[None]:
    """The model as it was before training, for the block: its adapters are switched off."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@dataclass(frozen=True, slots=True)
class Stored:
    """A weight by its name in the plain model, with the factors that belong to it."""

    name: str
    tensor: torch.Tensor
    factors: tuple[torch.Tensor, torch.Tensor] | None = None  # A [rank, in], B [out, rank]
    scale: float = 0.0

    @property
    def parts(self) -> list[torch.Tensor]:
        """What must be gathered before `value` is asked for."""
        return [self.tensor, *(self.factors or ())]

    def value(self) -> torch.Tensor:
        """The weight as others see it, without a graph; shares memory with the live one where there is no adapter."""
        if self.factors is None:
            return self.tensor.detach()
        a, b = self.factors
        change = (b.detach().float() @ a.detach().float()) * self.scale
        return (self.tensor.detach().float() + change).to(self.tensor.dtype)


def stored_weights(policy: nn.Module) -> Iterator[Stored]:
    """All weights under the plain model's `state_dict` names (tied ones and persistent buffers too)."""
    for name, tensor in policy.state_dict(keep_vars=True).items():
        if FACTOR in name:
            continue
        if not name.endswith(f"{BASE}weight"):
            yield Stored(name.replace(BASE, "."), tensor)
            continue
        layer = policy.get_submodule(name.removesuffix(f"{BASE}weight"))
        factors = (layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight)  # type: ignore[index, union-attr]
        yield Stored(name.replace(BASE, "."), tensor, factors, layer.scaling[ADAPTER])  # type: ignore[index, union-attr]
