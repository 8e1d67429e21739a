"""The vision tower's attention in one call where all windows have the same length.

Qwen2.5-VL attends within windows (most layers) or within a temporal patch (the others). transformers runs a Python
loop over those pieces, one small attention each: hundreds of calls for a batch of clips. Pieces of one length are a
batch: one call gives the same numbers. Pieces of several lengths, and flash attention, keep transformers' own path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionAttention, apply_rotary_pos_emb_vision

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration


class EvenVisionAttention(Qwen2_5_VLVisionAttention):
    """Attention over N patches cut into pieces by `cu_seqlens`."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **kwargs: object,
    ) -> torch.Tensor:
        """[N, hidden] to [N, hidden]."""
        lengths = cu_seqlens.diff()
        length = int(lengths.max())
        if self.config._attn_implementation != "sdpa" or not bool((lengths == length).all()):
            return super().forward(hidden_states, cu_seqlens, position_embeddings, **kwargs)  # type: ignore[arg-type]
        query, key, value = self.qkv(hidden_states).view(len(hidden_states), 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        pieces = [x.unflatten(0, (-1, length)).transpose(1, 2) for x in (query, key, value)]
        attended = functional.scaled_dot_product_attention(pieces[0], pieces[1], pieces[2], scale=self.scaling)
        return self.proj(attended.transpose(1, 2).reshape(len(hidden_states), -1))


def use_even_attention(policy: Qwen2_5_VLForConditionalGeneration) -> None:
    """Let the policy's vision tower batch pieces of equal length; modules and weights stay in place."""
    for block in policy.model.visual.blocks:
        block.attn.__class__ = EvenVisionAttention  # type: ignore[assignment]
