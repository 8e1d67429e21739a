"""Attention in two calls against one call with the whole mask."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig

from owlcap.models.packing import PackedBatch, pack_groups
from owlcap.models.prefix_attention import PrefixLayout, shared_prefix_attention
from tests.unit.models.test_packing import COMPLETIONS, make_prompt

HEADS, KEYS, WIDTH = 4, 2, 8


class Layer(torch.nn.Module):
    """What the attention reads of a model's layer."""

    num_key_value_groups = HEADS // KEYS


def batch_of(tiny_policy, *groups: list[tuple[int, ...]]) -> PackedBatch:
    config = AutoConfig.from_pretrained(tiny_policy)
    return pack_groups([(make_prompt(config, 11 + 2 * i), group) for i, group in enumerate(groups)], config)


def attend(batch: PackedBatch, *, split: bool) -> tuple[torch.Tensor, ...]:
    """Values at real tokens, and the gradients of query, key and value."""
    draw = torch.Generator().manual_seed(0)
    rows, size = batch.segments.shape
    query = torch.randn(rows, HEADS, size, WIDTH, generator=draw).requires_grad_()
    key, value = (torch.randn(rows, KEYS, size, WIDTH, generator=draw).requires_grad_() for _ in range(2))
    if split:
        mask = PrefixLayout.of(batch, torch.float32)
        out = shared_prefix_attention(Layer(), query, key, value, mask, scaling=0.3)[0]
    else:
        wide = [x.repeat_interleave(HEADS // KEYS, dim=1) for x in (key, value)]
        attended = functional.scaled_dot_product_attention(query, *wide, attn_mask=batch.attention_mask(), scale=0.3)
        out = attended.transpose(1, 2)
    real = out[batch.segments >= 0]
    (real * torch.randn(real.shape, generator=draw)).sum().backward()
    return (real, *(x.grad for x in (query, key, value)))  # type: ignore[misc]


@pytest.mark.parametrize(
    "groups",
    [
        [COMPLETIONS],
        [[(21,)], COMPLETIONS],
        [COMPLETIONS, [(1,) * 9], [(5, 6), (7, 8)]],
    ],
)
def test_values_and_gradients_are_those_of_the_whole_mask(tiny_policy, groups):
    batch = batch_of(tiny_policy, *groups)
    for ours, whole in zip(attend(batch, split=True), attend(batch, split=False), strict=True):
        assert torch.allclose(ours, whole, rtol=0, atol=1e-6)


def test_padding_is_zero(tiny_policy):
    batch = batch_of(tiny_policy, [(21,)], COMPLETIONS)
    rows, size = batch.segments.shape
    states = torch.randn(rows, HEADS, size, WIDTH), *(torch.randn(rows, KEYS, size, WIDTH) for _ in range(2))
    out = shared_prefix_attention(Layer(), *states, PrefixLayout.of(batch, torch.float32))[0]
    padding = out[batch.segments < 0]
    assert len(padding) == 5
    assert not padding.any()


def test_without_a_layout_it_is_transformers_own(tiny_policy):
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    states = torch.randn(2, HEADS, 7, WIDTH), *(torch.randn(2, KEYS, 7, WIDTH) for _ in range(2))
    ours, theirs = (f(Layer(), *states, None)[0] for f in (shared_prefix_attention, sdpa_attention_forward))
    assert torch.equal(ours, theirs)
