"""The patch embedding as a matrix product computes what the convolution does, forward and backward."""

from __future__ import annotations

import copy

import torch
from torch import nn

from owlcap.models.patch_embed import PatchProduct


def test_the_product_is_the_convolution() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv3d(3, 16, kernel_size=(2, 14, 14), stride=(2, 14, 14), bias=False)
    product = copy.deepcopy(convolution)
    product.__class__ = PatchProduct
    patches = torch.randn(10, 3, 2, 14, 14)
    expected, got = convolution(patches), product(patches)
    assert got.shape == expected.shape == (10, 16, 1, 1, 1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    for output in (expected, got):
        output.square().sum().backward()
    torch.testing.assert_close(product.weight.grad, convolution.weight.grad, atol=1e-3, rtol=1e-5)
    assert list(product.state_dict()) == ["weight"]
