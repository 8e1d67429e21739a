"""Attention over shared-prefix rows by FlexAttention: a kernel that leaves out the blocks which the mask hides.

Made for GPUs. On a CPU torch has the forward pass alone (and a slow one), so nothing can be trained there.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

    from owlcap.models.packing import PackedBatch

NAME = "owlcap_flex"


def block_mask(batch: PackedBatch) -> BlockMask:
    """The mask of packed rows (`PackedBatch.attention_mask`) in blocks."""
    segments = batch.segments
    rows, size = segments.shape

    def sees(row: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        of_key = segments[row, key]
        return (key <= query) & ((of_key == 0) | (of_key == segments[row, query]))

    return create_block_mask(sees, rows, None, size, size, device=segments.device)


def flex_attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: BlockMask | torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers' models call it; with anything but a block mask it is transformers' own SDPA.

    Args:
        query: [R, H, S, D]; key and value have H divided by the group size of grouped-query attention.

    Returns:
        [R, S, H, D].
    """
    if not isinstance(attention_mask, BlockMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)  # type: ignore[return-value]
    attend = _compiled() if query.is_cuda else flex_attention
    found = attend(
        query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=key.shape[1] < query.shape[1]
    )
    assert isinstance(found, torch.Tensor)
    return found.transpose(1, 2).contiguous(), None


@functools.cache
def _compiled() -> Any:
    """Without compilation it would compute the whole square; `dynamic`, since every micro batch has its own size."""
    return torch.compile(flex_attention, dynamic=True)


def use_flex_attention(policy: Qwen2_5_VLForConditionalGeneration) -> None:
    """Let the language model take a block mask; all other masks work as before."""
    AttentionInterface.register(NAME, flex_attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    policy.model.language_model.config._attn_implementation = NAME
