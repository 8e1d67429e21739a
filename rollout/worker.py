"""One rollout engine as a Ray actor.

The constructor does nothing heavy, so that waiting for a place in the cluster and waiting for an engine to load are
told apart. Calls run one after another: what is queued behind `start` or `load_weights` finds it done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray

from owlcap.errors import RolloutError
from owlcap.logging import get_logger, setup_actor_logging
from owlcap.ray_metrics import RolloutMetrics, count
from owlcap.training.buckets import WeightBucket, check_buckets
from owlcap.types import Prompt, RolloutGroup
from rollout.settings import EngineCounters, GenerationRequest, RolloutEngineSettings

if TYPE_CHECKING:
    from rollout.engine import Result, VllmEngine

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Where an actor runs."""

    node_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """One finished request: its position among those of the call, and what came of it, without the prompt."""

    position: int
    result: Result


class RolloutWorker:
    """A VllmEngine behind Ray. Made by RolloutPool, which sets the process's environment variables."""

    def __init__(self, settings: RolloutEngineSettings, index: int) -> None:
        self._settings, self._index = settings, index
        self._engine: VllmEngine | None = None
        setup_actor_logging(f"rollout-{index}")
        self._metrics = RolloutMetrics(index)

    def place(self) -> WorkerPlace:
        """Answers as soon as the actor has its resources and its process."""
        return WorkerPlace(ray.get_runtime_context().get_node_id(), os.getpid())

    def start(self) -> int:
        """Load the engine; its policy version (0: the weights on disk)."""
        started = time.perf_counter()
        from rollout.engine import VllmEngine

        self._engine = VllmEngine(self._settings)
        self._metrics.policy_version.set(self._engine.version)
        logger.info("engine of %s loaded in %.1f s", self._settings.model, time.perf_counter() - started)
        return self._engine.version

    def load_weights(self, refs: Sequence[ray.ObjectRef], version: int) -> int:
        """Load weights, one WeightBucket an object reference, and answer with the version.

        References come in a list, since Ray would fetch bare ones before the call. They are fetched one at a time.

        Raises:
            RolloutError: a bucket is not what the learner put; the engine then still holds its old weights.
        """

        def buckets() -> Iterator[WeightBucket]:
            return (ray.get(ref) for ref in refs)

        engine, started = self._running(), time.perf_counter()
        check_buckets(buckets())
        engine.load_weights((bucket.weights for bucket in buckets()), version)
        self._metrics.policy_version.set(version)
        logger.info("policy version %d loaded in %.2f s", version, time.perf_counter() - started)
        return engine.version

    def sleep(self) -> None:
        """Give the GPU's memory to others until weights are loaded."""
        self._running().sleep()

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        """Join the learner's NCCL group; this and the next three are vLLM's weight-transfer API (rollout.transfer)."""
        self._running().init_weight_transfer_engine(init_info)

    def start_weight_update(self) -> None:
        """Make ready to receive weights."""
        self._running().start_weight_update()

    def update_weights(self, update_info: Mapping[str, Any]) -> None:
        """Receive weights, while the learner sends them."""
        self._running().update_weights(update_info)

    def finish_weight_update(self) -> None:
        """All weights have come."""
        self._running().finish_weight_update()

    def commit_weights(self, checksum: int, version: int) -> int:
        """Use what was received, if its checksum is that of what was sent, and answer with the version."""
        engine = self._running()
        engine.commit_weights(checksum, version)
        self._metrics.policy_version.set(version)
        logger.info("policy version %d received", version)
        return engine.version

    def version(self) -> int:
        """Policy version of the weights in the engine."""
        return self._running().version

    def counters(self) -> EngineCounters:
        """What the engine has done."""
        return self._running().counters

    def generate(self, requests: Sequence[GenerationRequest], version: int) -> Iterator[Prompt | WorkerResult | None]:
        """Yield, for every request as it finishes, first its Prompt (or None), then its WorkerResult.

        Two objects, so that the pool can pass a prompt's reference on without fetching its pixels. They belong to
        the caller and outlive this actor.
        """
        engine = self._running()
        before, num_left = engine.counters, len(requests)
        self._metrics.queue.set(num_left)
        for position, result in engine.stream(requests, version):
            prompt = None
            if isinstance(result, RolloutGroup):
                prompt = result.prompt
                count(self._metrics.decode_s, result.decode_s)
            else:
                logger.warning("no captions of %s: %s: %s", result.sample.id, result.error, result.reason)
            yield prompt
            yield WorkerResult(position, replace(result, prompt=None) if prompt is not None else result)
            num_left -= 1
            self._metrics.queue.set(num_left)
        self._record(before, engine.counters)

    def close(self) -> None:
        """End the engine and its decoder processes."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _running(self) -> VllmEngine:
        if self._engine is None:
            raise RolloutError("this rollout worker's engine is not running", where=f"worker {self._index}")
        return self._engine

    def _record(self, before: EngineCounters, after: EngineCounters) -> None:
        metrics = self._metrics
        num_tokens, seconds = after.num_tokens - before.num_tokens, after.generate_s - before.generate_s
        num_groups, num_failures = after.num_groups - before.num_groups, after.num_failures - before.num_failures
        count(metrics.tokens, num_tokens)
        count(metrics.generate_s, seconds)
        count(metrics.prompts, num_groups + num_failures)
        count(metrics.failures, num_failures)
        if num_tokens:
            metrics.speed.set(num_tokens / seconds)
        logger.info("%d groups, %d failures, %d tokens in %.1f s", num_groups, num_failures, num_tokens, seconds)
