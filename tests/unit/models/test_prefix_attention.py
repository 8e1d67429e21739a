"""Attention in parts against one call with the whole mask."""

from dataclasses import replace

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


def batch_of(tiny_policy, *groups: list[tuple[int, ...]], longer: int = 0) -> PackedBatch:
    """Rows of these completions; `longer`: tokens that each prompt has more than the one before."""
    config = AutoConfig.from_pretrained(tiny_policy)
    prompts = [make_prompt(config, 11 + 2 * i) for i in range(len(groups))]
    prompts = [replace(one, token_ids=one.token_ids + (7,) * (i * longer)) for i, one in enumerate(prompts)]
    return pack_groups(list(zip(prompts, groups, strict=True)), config)


def attend(batch: PackedBatch, *, split: bool, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Values at real tokens, and the gradients of query, key and value."""
    draw = torch.Generator().manual_seed(0)
    rows, size = batch.segments.shape
    shapes = [(rows, heads, size, WIDTH) for heads in (HEADS, KEYS, KEYS)]
    query, key, value = (torch.randn(shape, generator=draw).to(dtype).requires_grad_() for shape in shapes)
    if split:
        mask = PrefixLayout.of(batch)
        out = shared_prefix_attention(Layer(), query, key, value, mask, scaling=0.3)[0]
    else:
        wide = [x.repeat_interleave(HEADS // KEYS, dim=1) for x in (key, value)]
        attended = functional.scaled_dot_product_attention(query, *wide, attn_mask=batch.attention_mask(), scale=0.3)
        out = attended.transpose(1, 2)
    real = out[batch.segments >= 0]
    (real * torch.randn(real.shape, generator=draw)).sum().backward()
    return (real, *(x.grad for x in (query, key, value)))  # type: ignore[misc]


GROUPS = [[COMPLETIONS], [[(21,)], COMPLETIONS], [COMPLETIONS, [(1,) * 9], [(5, 6), (7, 8)]]]


@pytest.mark.parametrize("longer", [0, 4])
@pytest.mark.parametrize("groups", GROUPS)
def test_values_and_gradients_are_those_of_the_whole_mask(tiny_policy, groups, longer):
    batch = batch_of(tiny_policy, *groups, longer=longer)
    for ours, whole in zip(attend(batch, split=True), attend(batch, split=False), strict=True):
        assert torch.allclose(ours, whole, rtol=0, atol=1e-6)


def test_in_bf16_it_is_as_near_to_fp32_as_the_whole_mask_is(tiny_policy):
    batch = batch_of(tiny_policy, *GROUPS[2], longer=4)
    exact = attend(batch, split=False)
    ours, whole = (attend(batch, split=split, dtype=torch.bfloat16) for split in (True, False))
    for mine, theirs, right in zip(ours, whole, exact, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine - right).abs().max() < 1.5 * (theirs - right).abs().max()


@pytest.mark.parametrize(("longer", "num_padding"), [(0, 5), (9, 14)])
def test_padding_is_zero_beside_a_longer_prompt_too(tiny_policy, longer, num_padding):
    batch = batch_of(tiny_policy, [(21,)], COMPLETIONS, longer=longer)
    rows, size = batch.segments.shape
    states = torch.randn(rows, HEADS, size, WIDTH), *(torch.randn(rows, KEYS, size, WIDTH) for _ in range(2))
    out = shared_prefix_attention(Layer(), *states, PrefixLayout.of(batch))[0]
    padding = out[batch.segments < 0]
    assert len(padding) == num_padding
    assert not padding.any()


def test_without_a_layout_it_is_transformers_own(tiny_policy):
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    states = torch.randn(2, HEADS, 7, WIDTH), *(torch.randn(2, KEYS, 7, WIDTH) for _ in range(2))
    ours, theirs = (f(Layer(), *states, None)[0] for f in (shared_prefix_attention, sdpa_attention_forward))
    assert torch.equal(ours, theirs)
