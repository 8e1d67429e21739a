"""New weights from the learner to the rollout engines.

shared_memory:

    learner ranks ── gather a bucket ──> rank 0 ── one object a bucket ──> object store ──> every engine

nccl (see rl.nccl and rollout.transfer): rank 0's GPU ── broadcasts ──> every engine's GPUs

A bucket holds (checkpoint name, numpy array) pairs, the form that travels through Ray's shared memory without a copy
on the reading side, and their checksum, which every engine verifies before it loads a single weight. numpy has no
bfloat16, so such weights travel as their bit patterns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import ray
import torch

from owlcap.errors import RolloutError
from owlcap.training.buckets import WeightBucket, WeightDigest, make_bucket
from rollout.transfer import EngineActors


class WeightReceiver(Protocol):
    """What takes new weights; `rollout.pool.RolloutPool` is one."""

    def sync(self, refs: Sequence[ray.ObjectRef], version: int) -> None:
        """Load the buckets behind `refs` everywhere, and return when that is done."""
        ...

    def receive(
        self, send: Callable[[EngineActors], WeightDigest], later: Callable[[], Sequence[ray.ObjectRef]], version: int
    ) -> WeightDigest:
        """Have `send` send weights to all engines; return when they are loaded. `later` gives the same once more."""
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
class DirectWeights:
    """Weights that are still in the learner, which sends them itself once all engines are ready."""

    send: Callable[[EngineActors], WeightDigest]
    buckets: Callable[[], WeightBuckets]  # the same, for an engine that is replaced before the next update


@dataclass(frozen=True, slots=True)
class SyncStats:
    """What a sync moved and how long it took."""

    num_bytes: int
    gather_s: float  # collecting the weights and putting them into the object store; 0 where they are sent directly
    load_s: float  # bringing them into all engines


def load_weights(weights: WeightBuckets | DirectWeights, pool: WeightReceiver, version: int) -> SyncStats:
    """Bring all rollout engines to these weights, as policy `version`.

    Raises:
        RolloutError: an engine does not hold `version` afterwards.
    """
    started = time.perf_counter()
    if isinstance(weights, DirectWeights):
        sent = pool.receive(weights.send, lambda: weights.buckets().refs, version)
        num_bytes, gather_s = sent.num_bytes, 0.0
    else:
        pool.sync(weights.refs, version)
        num_bytes, gather_s = weights.num_bytes, weights.gather_s
    versions = pool.versions()
    if set(versions) - {version}:
        raise RolloutError(
            f"rollout engines hold policy versions {versions} after a sync to {version}",
            cure="resume from the last checkpoint; if it happens again, see the engines' logs",
        )
    return SyncStats(num_bytes, gather_s, time.perf_counter() - started)


def as_buckets(buckets: Iterable[Sequence[tuple[str, torch.Tensor]]]) -> Iterator[WeightBucket]:
    """Each bucket of CPU tensors as arrays; empty ones (other ranks') are passed over."""
    for bucket in buckets:
        if bucket:
            yield make_bucket([(name, as_array(tensor)) for name, tensor in bucket])


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A view of a CPU tensor's memory; bfloat16 as uint16."""
    tensor = tensor.contiguous()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
