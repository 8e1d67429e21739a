"""A bucket of weights on its way from the learner to the rollout engines, with the checksum that travels with it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from owlcap.errors import RolloutError

if TYPE_CHECKING:
    import torch

NamedArrays = Sequence[tuple[str, np.ndarray]]
WORD = 8  # bytes that are summed as one number
THREADS = 4  # numpy lets go of the interpreter while it sums


@dataclass(frozen=True, slots=True)
class WeightBucket:
    """Some of a policy's weights: (checkpoint name, array); bfloat16 as its bit patterns in uint16."""

    weights: NamedArrays
    checksum: int

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for _, array in self.weights)


@dataclass(slots=True)
class WeightDigest:
    """Checksum and size of tensors that pass by on any device, in their order; for weights that make no buckets."""

    checksum: int = 0
    num_bytes: int = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Count one more tensor."""
        import torch

        words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
        total = tensor.contiguous().view(-1).view(words).sum(dtype=torch.int64).item()
        described = f"{name} {tensor.dtype} {tuple(tensor.shape)} {total}"
        self.checksum = zlib.crc32(described.encode(), self.checksum)
        self.num_bytes += tensor.nbytes


def make_bucket(weights: NamedArrays) -> WeightBucket:
    """A bucket with the checksum of what is in it now."""
    return WeightBucket(weights, checksum(weights))


def check_buckets(buckets: Iterable[WeightBucket]) -> None:
    """Raise RolloutError if a bucket's weights are not those that it was made of."""
    for number, bucket in enumerate(buckets):
        found = checksum(bucket.weights)
        if found != bucket.checksum:
            raise RolloutError(
                f"weights changed on their way to a rollout engine: checksum {found:08x}, not {bucket.checksum:08x}",
                where=f"bucket {number}, from {bucket.weights[0][0]} on" if bucket.weights else f"bucket {number}",
                cure="look for failing memory or disks on the engine's node, then resume from the last checkpoint",
            )


def checksum(weights: NamedArrays) -> int:
    """CRC-32 over every array's name, type, shape and wrap-around sum of 64-bit words.

    The sum runs at about the speed of memory. It finds changed, lost and swapped arrays, not swapped words in one.
    """
    crc = 0
    with ThreadPoolExecutor(THREADS) as threads:
        sums = threads.map(_sum, (array for _, array in weights))
        for (name, array), total in zip(weights, sums, strict=True):
            crc = zlib.crc32(f"{name} {array.dtype} {array.shape} {total}".encode(), crc)
    return crc


def _sum(array: np.ndarray) -> int:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    whole = flat.size - flat.size % WORD
    return int(flat[:whole].view(np.uint64).sum()) + int.from_bytes(flat[whole:].tobytes(), "little")
