"""The vision tower's patch embedding as the matrix product that it is.

Qwen2.5-VL embeds patches with a 3-D convolution whose kernel is as large as its input: one product of a patch with
the flattened kernel. As a convolution it takes 44 % of the tower's time on a CPU and far more than its share on
GPUs in bf16 (vLLM computes it as a product for that reason). Weights and their names stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration


class PatchProduct(nn.Conv3d):
    """A Conv3d for inputs of exactly its kernel's size, without bias."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, channels, time, height, width] to [N, out, 1, 1, 1]."""
        return functional.linear(input.flatten(1), self.weight.flatten(1))[:, :, None, None, None]


def use_patch_product(policy: Qwen2_5_VLForConditionalGeneration) -> None:
    """Let the policy's patch embedding run as a matrix product; the module and its weights stay in place."""
    projection = policy.model.visual.patch_embed.proj
    assert projection.kernel_size == projection.stride
    assert projection.bias is None
    projection.__class__ = PatchProduct
