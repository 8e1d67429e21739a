"""Attention over shared-prefix rows in two calls, neither of which computes what the mask would hide.

A packed row is [prompt | completion 1 | ... | completion G]. Its mask hides most of the square: completions do not see
each other, the prompt sees no completion. One masked call computes the whole square all the same, (P + G*C)^2 scores;
two calls compute about half a square of the prompt and G rectangles, P^2 / 2 + G*C*(P + C):

    prompt       causal attention over the first P tokens of every row
    completions  each a batch entry: its queries over [the prompt's keys | its own keys], causal in its own part

Shapes: R rows, S tokens of a row, P tokens of the longest prompt, K completions of the batch, C tokens of the longest;
H heads, D values of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

    from owlcap.models.packing import PackedBatch

NAME = "owlcap_shared_prefix"


@dataclass(frozen=True, slots=True)
class PrefixLayout:
    """Where the completions of packed rows are, and which keys their tokens may see."""

    prompt_size: int  # P
    row: torch.Tensor  # long [K]: the row of each completion
    tokens: torch.Tensor  # long [K, C]: flat index into R*S of its tokens; where it is shorter, of its first
    bias: torch.Tensor  # [K, 1, C, P + C]: 0 where a token sees a key, else -inf
    place: torch.Tensor  # long [N]: flat index into R*S of every completion token
    source: torch.Tensor  # long [N]: flat index into K*C of the same

    @classmethod
    def of(cls, batch: PackedBatch, dtype: torch.dtype) -> PrefixLayout:
        """The layout of a batch's rows; `dtype` is the attention's."""
        segments = batch.segments
        place = (segments > 0).flatten().nonzero()[:, 0]
        lengths = torch.tensor(batch.lengths, device=place.device)
        longest, ends = int(lengths.max()), lengths.cumsum(0)
        step = torch.arange(longest, device=place.device)
        real = step < lengths[:, None]  # [K, C]
        tokens = place[torch.where(real, (ends - lengths)[:, None] + step, (ends - lengths)[:, None])]
        row = tokens[:, 0] // segments.shape[1]
        prompts = (segments == 0).sum(1)
        size = int(prompts.max())
        sees_prompt = (torch.arange(size, device=place.device) < prompts[row, None])[:, None].expand(-1, longest, -1)
        sees_itself = (
            torch.ones(longest, longest, dtype=torch.bool, device=place.device).tril().expand(len(row), -1, -1)
        )
        sees = torch.cat([sees_prompt, sees_itself], dim=2)[:, None]
        bias = torch.zeros(sees.shape, dtype=dtype, device=place.device).masked_fill(~sees, float("-inf"))
        return cls(size, row, tokens, bias, place, real.flatten().nonzero()[:, 0])


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: PrefixLayout | torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers' models call it; with anything but a layout it is transformers' own SDPA.

    Args:
        query: [R, H, S, D]; key and value have H divided by the group size of grouped-query attention.

    Returns:
        [R, S, H, D]; padding's part is 0.
    """
    if not isinstance(attention_mask, PrefixLayout):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)  # type: ignore[arg-type]
    layout, heads_per_key = attention_mask, int(getattr(module, "num_key_value_groups", 1))
    rows, heads, size, width = query.shape
    end = layout.prompt_size
    prompt = functional.scaled_dot_product_attention(
        query[:, :, :end],
        key[:, :, :end],
        value[:, :, :end],
        is_causal=True,
        scale=scaling,
        enable_gqa=heads_per_key > 1,
    )
    keys, values = (repeat_kv(_of_completions(x, layout), heads_per_key) for x in (key, value))
    completions = functional.scaled_dot_product_attention(
        _take(query, layout.tokens), keys, values, attn_mask=layout.bias, scale=scaling
    )
    whole = query.new_zeros(rows, size, heads, width)
    whole[:, :end] = prompt.transpose(1, 2)  # a shorter prompt's row has completion tokens here: overwritten below
    found = completions.transpose(1, 2).reshape(-1, heads, width)[layout.source]
    return whole.view(-1, heads, width).index_copy(0, layout.place, found).view(rows, size, heads, width), None


def use_shared_prefix_attention(policy: Qwen2_5_VLForConditionalGeneration) -> None:
    """Let the language model take a PrefixLayout for its mask; all other masks work as before."""
    AttentionInterface.register(NAME, shared_prefix_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    policy.model.language_model.config._attn_implementation = NAME


def _take(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """[R, H, S, D] at flat token indices [K, C]: [K, H, C, D]."""
    return states.transpose(1, 2).flatten(0, 1)[tokens].transpose(1, 2)


def _of_completions(states: torch.Tensor, layout: PrefixLayout) -> torch.Tensor:
    """Keys or values that each completion sees: [K, H, P + C, D]."""
    prompts = states[:, :, : layout.prompt_size]
    # Of a single group the prompt is not copied before it is joined.
    shared = prompts.expand(len(layout.row), -1, -1, -1) if len(prompts) == 1 else prompts[layout.row]
    return torch.cat([shared, _take(states, layout.tokens)], dim=2)
