"""Batched vision attention gives transformers' own numbers, for pieces of equal and of different lengths."""

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from owlcap.models.vision_attention import EvenVisionAttention, use_even_attention


@pytest.mark.parametrize(
    "grids",
    [
        [(3, 4, 4), (2, 4, 4)],  # all pieces 16 patches: one call
        [(2, 12, 8)],  # a frame is 2 windows, of 64 and 32 patches
        [(2, 4, 4), (1, 4, 6)],
    ],
)
def test_the_tower_computes_the_same_with_gradients(tiny_policy, grids):
    models = [Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_policy) for _ in range(2)]
    use_even_attention(models[1])
    assert isinstance(models[1].model.visual.blocks[0].attn, EvenVisionAttention)
    pixels = torch.randn(sum(t * h * w for t, h, w in grids), 1176, generator=torch.Generator().manual_seed(0))
    results = []
    for model in models:
        visual = model.model.visual
        features = visual(pixels, grid_thw=torch.tensor(grids)).pooler_output
        features.square().sum().backward()
        results.append((features.detach(), [p.grad for p in visual.parameters()]))
    assert torch.allclose(results[0][0], results[1][0], rtol=0, atol=1e-5)
    for first, second in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max()))
