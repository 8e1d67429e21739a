"""The checksum of weights on their way: what it finds, and that it reads every byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from owlcap.errors import RolloutError
from owlcap.training.buckets import WeightBucket, WeightDigest, check_buckets, checksum, make_bucket

WEIGHTS = [("a", np.arange(12, dtype=np.float32).reshape(3, 4)), ("b", np.arange(5, dtype=np.uint16))]


def copies() -> list[tuple[str, np.ndarray]]:
    return [(name, array.copy()) for name, array in WEIGHTS]


def test_what_was_put_is_accepted_and_counted() -> None:
    bucket = make_bucket(WEIGHTS)
    check_buckets([bucket, WeightBucket(copies(), bucket.checksum)])
    assert bucket.num_bytes == 12 * 4 + 5 * 2


@pytest.mark.parametrize(("array", "byte"), [(0, 0), (0, 47), (1, 0), (1, 7), (1, 8), (1, 9)])
def test_any_changed_byte_is_found(array: int, byte: int) -> None:
    weights = copies()
    weights[array][1].reshape(-1).view(np.uint8)[byte] ^= 1
    with pytest.raises(RolloutError, match="weights changed on their way") as error:
        check_buckets([make_bucket(WEIGHTS), WeightBucket(weights, checksum(WEIGHTS))])
    assert error.value.where == "bucket 1, from a on"


@pytest.mark.parametrize(
    "weights",
    [
        WEIGHTS[:1],
        WEIGHTS[::-1],
        [("c", WEIGHTS[0][1]), WEIGHTS[1]],
        [("a", WEIGHTS[0][1].reshape(4, 3)), WEIGHTS[1]],
        [("a", WEIGHTS[0][1].view(np.int32)), WEIGHTS[1]],
    ],
    ids=["lost", "swapped", "renamed", "reshaped", "another type"],
)
def test_names_shapes_types_and_order_are_part_of_it(weights: list[tuple[str, np.ndarray]]) -> None:
    assert checksum(weights) != checksum(WEIGHTS)


def test_scalars_empty_arrays_and_strided_ones_can_be_summed() -> None:
    square = np.arange(9.0).reshape(3, 3)
    odd = [("scalar", np.array(2.0)), ("empty", np.zeros((0, 3), np.float32)), ("strided", square.T)]
    contiguous = [*odd[:2], ("strided", np.ascontiguousarray(square.T))]
    assert checksum(odd) == checksum(contiguous)


def digest_of(*pairs: tuple[str, torch.Tensor]) -> WeightDigest:
    digest = WeightDigest()
    for name, tensor in pairs:
        digest.add(name, tensor)
    return digest


def test_a_digest_sees_values_names_types_and_order():
    a, b = ("a", torch.tensor([1.0, 2.0])), ("b", torch.tensor([3.0], dtype=torch.bfloat16))
    whole = digest_of(a, b)
    assert whole == digest_of(a, b)
    assert whole.num_bytes == 10
    others = (
        digest_of(b, a),
        digest_of(a),
        digest_of(("c", a[1]), b),
        digest_of(("a", torch.tensor([1.0, 2.5])), b),
        digest_of(("a", a[1].view(2, 1)), b),
        digest_of(a, ("b", b[1].view(torch.float16))),
    )
    assert whole.checksum not in {other.checksum for other in others}
