"""Attention over shared-prefix rows on a CPU: nothing is computed that the mask would hide, and no prompt is copied.

A packed row is [prompt | completion 1 | ... | completion G]. Its mask hides most of the square: completions do not see
each other, the prompt sees no completion. One masked call computes the whole square all the same, (P + G*C)^2 scores;
three calls of flash attention compute P^2 / 2 + G*C*(P + C / 2):

    prompt   causal attention of the first P tokens of every row
    context  the completions' tokens over the prompt's keys; those of a row are one sequence of queries
    own      causal attention within each completion

A completion's token has its values from the last two: two softmaxes over parts of one row of scores, joined by their
log-sum-exp (Hydragen, arXiv 2402.05099). Given the joined values and log-sum-exp, flash attention's own backward pass
gives each part's share of the gradients.

Shapes: R rows, S tokens of a row, P tokens of the longest prompt, T completion tokens of a row, K completions of the
batch, C tokens of the longest, N completion tokens of the batch; H heads, J heads of keys, D values of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

    from owlcap.models.packing import PackedBatch

NAME = "owlcap_shared_prefix"
# What scaled_dot_product_attention runs on a CPU; called by itself, it also gives the log-sum-exp.
flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Sequences:
    """The completion tokens as A sequences of B tokens; a shorter one is filled up with its first token."""

    tokens: torch.Tensor  # long [A, B]: flat index into R*S
    places: torch.Tensor  # long [N]: flat index into A*B of every completion token

    @classmethod
    def of(cls, tokens: torch.Tensor, lengths: torch.Tensor) -> Sequences:
        """Cut flat indices [N] into sequences of these lengths [A]."""
        firsts = (lengths.cumsum(0) - lengths)[:, None]
        steps = torch.arange(int(lengths.max()), device=tokens.device)
        real = steps < lengths[:, None]
        return cls(tokens[torch.where(real, firsts + steps, firsts)], real.flatten().nonzero()[:, 0])

    def take(self, states: torch.Tensor) -> torch.Tensor:
        """[R, H, S, D] as [A, H, B, D]."""
        return states.transpose(1, 2).flatten(0, 1)[self.tokens].transpose(1, 2)

    def collect(self, states: torch.Tensor) -> torch.Tensor:
        """[A, H, B, ...] as [N, H, ...]."""
        return states.transpose(1, 2).flatten(0, 1)[self.places]

    def spread(self, states: torch.Tensor, filling: float = 0.0) -> torch.Tensor:
        """[N, H, ...] as [A, H, B, ...]."""
        filled = states.new_full((self.tokens.numel(), *states.shape[1:]), filling)
        return filled.index_copy(0, self.places, states).unflatten(0, self.tokens.shape).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class PrefixLayout:
    """Where prompts and completions are in packed rows."""

    prompt_size: int  # P
    hidden: torch.Tensor | None  # bool [R, P]: no token of the row's prompt; None where all prompts have P tokens
    tokens: torch.Tensor  # long [N]: flat index into R*S of every completion token
    by_row: Sequences  # A = R, B = T
    by_completion: Sequences  # A = K, B = C

    @classmethod
    def of(cls, batch: PackedBatch) -> PrefixLayout:
        """The layout of a batch's rows."""
        is_completion, sizes = batch.segments > 0, (batch.segments == 0).sum(1)
        tokens, size = is_completion.flatten().nonzero()[:, 0], int(sizes.max())
        return cls(
            size,
            None if bool((sizes == size).all()) else torch.arange(size, device=tokens.device) >= sizes[:, None],
            tokens,
            Sequences.of(tokens, is_completion.sum(1)),
            Sequences.of(tokens, torch.tensor(batch.lengths, device=tokens.device)),
        )

    def bias(self, dtype: torch.dtype) -> torch.Tensor | None:
        """[R, 1, 1, P] for the scores of the context: -inf where a key is no prompt's."""
        if self.hidden is None:
            return None
        zeros = torch.zeros(self.hidden.shape, dtype=dtype, device=self.hidden.device)
        return zeros.masked_fill(self.hidden, float("-inf"))[:, None, None]

    def of_prompts(self, states: torch.Tensor) -> torch.Tensor:
        """[R, S, H, D] as [R, H, P, D], 0 where there is no prompt."""
        prompts = states[:, : self.prompt_size]
        if self.hidden is not None:
            prompts = prompts.masked_fill(self.hidden[:, :, None, None], 0.0)
        return prompts.transpose(1, 2)


class _SharedPrefixAttention(torch.autograd.Function):
    """query [R, H, S, D], key and value [R, J, S, D]: [R, S, H, D]; padding's part is 0."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: PrefixLayout,
        scale: float | None,
    ) -> torch.Tensor:
        (rows, heads, size, width), keys = query.shape, key.shape[1]
        end, by_row, by_completion = layout.prompt_size, layout.by_row, layout.by_completion
        prompts = [x[:, :, :end] for x in (query, key, value)]
        of_prompt = flash(*_one_key_a_head(*prompts), 0.0, True, scale=scale)

        asked = _by_key(by_row.take(query), keys)
        found, lse = flash(asked, *prompts[1:], 0.0, False, attn_mask=layout.bias(query.dtype), scale=scale)
        context = by_row.collect(_by_head(found, heads)).float()
        context_lse = by_row.collect(lse.reshape(rows, heads, -1))

        mine = [by_completion.take(x) for x in (query, key, value)]
        own, own_lse = (by_completion.collect(x) for x in flash(*_one_key_a_head(*mine), 0.0, True, scale=scale))

        lse = torch.logaddexp(context_lse, own_lse)  # [N, H]
        joined = own.float().lerp(context, (context_lse - lse).exp()[..., None]).to(query.dtype)  # [N, H, D]
        whole = query.new_zeros(rows, size, heads, width)
        whole[:, :end] = of_prompt[0].transpose(1, 2)
        if layout.hidden is not None:
            whole[:, :end].masked_fill_(layout.hidden[:, :, None, None], 0.0)
        whole.flatten(0, 1).index_copy_(0, layout.tokens, joined)
        ctx.save_for_backward(query, key, value, *of_prompt, joined, lse)
        ctx.layout, ctx.scale = layout, scale
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        query, key, value, prompt, prompt_lse, joined, lse = ctx.saved_tensors
        layout, scale = ctx.layout, ctx.scale
        heads, keys = query.shape[1], key.shape[1]
        end, by_row, by_completion = layout.prompt_size, layout.by_row, layout.by_completion
        grads = [x.new_zeros(x.shape[0], x.shape[2], x.shape[1], x.shape[3]) for x in (query, key, value)]

        prompts = [x[:, :, :end] for x in (query, key, value)]
        of_prompt = flash_backward(
            layout.of_prompts(grad), *_one_key_a_head(*prompts), prompt, prompt_lse, 0.0, True, scale=scale
        )
        of_tokens = grad.flatten(0, 1)[layout.tokens]  # [N, H, D]

        def given(sequences: Sequences) -> tuple[torch.Tensor, ...]:
            """Gradient, values and log-sum-exp; what fills a sequence up has no gradient and weighs no key."""
            return sequences.spread(of_tokens), sequences.spread(joined), sequences.spread(lse, float("inf"))

        wanted, *found = (_by_key(x, keys) for x in given(by_row))
        asked, bias = _by_key(by_row.take(query), keys), layout.bias(query.dtype)
        of_context = flash_backward(wanted, asked, *prompts[1:], *found, 0.0, False, attn_mask=bias, scale=scale)
        mine = [by_completion.take(x) for x in (query, key, value)]
        wanted, *found = given(by_completion)
        of_own = flash_backward(wanted, *_one_key_a_head(*mine), *found, 0.0, True, scale=scale)

        grads[0][:, :end] = of_prompt[0].transpose(1, 2)
        of_queries = by_row.collect(_by_head(of_context[0], heads)) + by_completion.collect(of_own[0])
        grads[0].flatten(0, 1).index_copy_(0, layout.tokens, of_queries)
        for whole, of_prompts, of_contexts, of_owns in zip(
            grads[1:], of_prompt[1:], of_context[1:], of_own[1:], strict=True
        ):
            whole[:, :end] = (_sum_by_key(of_prompts, keys) + of_contexts).transpose(1, 2)
            whole.flatten(0, 1).index_copy_(0, layout.tokens, by_completion.collect(_sum_by_key(of_owns, keys)))
        return (*(whole.transpose(1, 2) for whole in grads), None, None)


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
    return _SharedPrefixAttention.apply(query, key, value, attention_mask, scaling), None  # type: ignore[return-value]


def use_shared_prefix_attention(policy: Qwen2_5_VLForConditionalGeneration) -> None:
    """Let the language model take a PrefixLayout for its mask; all other masks work as before."""
    AttentionInterface.register(NAME, shared_prefix_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    policy.model.language_model.config._attn_implementation = NAME


def _one_key_a_head(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Keys and values repeated, so that each head has its own."""
    repeats = query.shape[1] // key.shape[1]
    return query, repeat_kv(key, repeats), repeat_kv(value, repeats)


def _by_key(states: torch.Tensor, keys: int) -> torch.Tensor:
    """[R, H, T, ...] as [R, J, H/J*T, ...]: heads that share a key are one sequence."""
    return states.unflatten(1, (keys, -1)).flatten(2, 3)


def _by_head(states: torch.Tensor, heads: int) -> torch.Tensor:
    """The reverse of `_by_key`."""
    return states.unflatten(2, (heads // states.shape[1], -1)).flatten(1, 2)


def _sum_by_key(grad: torch.Tensor, keys: int) -> torch.Tensor:
    """[R, H, T, D], of repeated keys: [R, J, T, D]."""
    return grad.unflatten(1, (keys, -1)).sum(2)
