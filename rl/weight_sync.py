"""New weights from the learner to the rollout engines.

    learner ranks ── gather a bucket ──> rank 0 ── one object a bucket ──> object store ──> every engine

A bucket holds (checkpoint name, numpy array) pairs, the form that travels through Ray's shared memory without a copy
on the reading side, and their checksum, which every engine verifies before it loads a single weight. numpy has no
bfloat16, so such weights travel as their bit patterns.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import ray
import torch

from owlcap.errors import RolloutError
from owlcap.training.buckets import WeightBucket, make_bucket


class WeightReceiver(Protocol):
    """What takes new weights; `rollout.pool.RolloutPool` is one."""

    def sync(self, refs: Sequence[ray.ObjectRef], version: int) -> None:
        """Load the buckets behind `refs` everywhere, and return when that is done."""
        ...

    def versions(self) -> tuple[int, ...]:
        """Policy version that each engine says it holds."""
        ...


@dataclass(frozen=True, slots=True)
class WeightBuckets:
    """Buckets in the object store. The driver owns them: they outlive the rank that made them."""

    refs: tuple[ray.ObjectRef, ...]
    num_bytes: int
    gather_s: float = 0.0  # collecting the weights, summing them up and putting them into the object store


@dataclass(frozen=True, slots=True)
class SyncStats:
    """What a sync moved and how long it took."""

    num_bytes: int
    gather_s: float  # collecting the weights and putting them into the object store
    load_s: float  # loading them into all engines


def load_weights(buckets: WeightBuckets, pool: WeightReceiver, version: int) -> SyncStats:
    """Bring all rollout engines to these weights, as policy `version`.

    Raises:
        RolloutError: an engine does not hold `version` afterwards.
    """
    started = time.perf_counter()
    pool.sync(buckets.refs, version)
    versions = pool.versions()
    if set(versions) - {version}:
        raise RolloutError(
            f"rollout engines hold policy versions {versions} after a sync to {version}",
            cure="resume from the last checkpoint; if it happens again, see the engines' logs",
        )
    return SyncStats(buckets.num_bytes, buckets.gather_s, time.perf_counter() - started)


def as_buckets(buckets: Iterable[Sequence[tuple[str, torch.Tensor]]]) -> Iterator[WeightBucket]:
    """Each bucket of CPU tensors as arrays; empty ones (other ranks') are passed over."""
    for bucket in buckets:
        if bucket:
            yield make_bucket([(name, as_array(tensor)) for name, tensor in bucket])


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A view of a CPU tensor's memory; bfloat16 as uint16."""
    tensor = tensor.contiguous()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
