"""One rollout engine as a Ray actor.

The constructor does nothing heavy, so that waiting for a place in the cluster and waiting for an engine to load are
told apart. Calls run one after another: what is queued behind `start` or `load_weights` finds it done.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ray
from ray.util.metrics import Counter, Gauge

from owlcap.errors import RolloutError
from owlcap.types import Prompt, RolloutGroup
from rollout.settings import EngineCounters, GenerationRequest, RolloutEngineSettings

if TYPE_CHECKING:
    from rollout.engine import Result, VllmEngine


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
        tags = {"worker": str(index)}
        self._tokens = Counter("owlcap_rollout_tokens", "Tokens sampled.", ("worker",))
        self._failures = Counter("owlcap_rollout_failures", "Prompts that gave no group.", ("worker",))
        self._speed = Gauge("owlcap_rollout_tokens_per_second", "Sampled in the last call.", ("worker",))
        self._queue = Gauge("owlcap_rollout_queue", "Prompts not finished.", ("worker",))
        self._policy = Gauge("owlcap_rollout_policy_version", "Version of the weights in the engine.", ("worker",))
        for metric in (self._tokens, self._failures, self._speed, self._queue, self._policy):
            metric.set_default_tags(tags)

    def place(self) -> WorkerPlace:
        """Answers as soon as the actor has its resources and its process."""
        return WorkerPlace(ray.get_runtime_context().get_node_id(), os.getpid())

    def start(self) -> int:
        """Load the engine; its policy version (0: the weights on disk)."""
        gc.disable()  # most of a start is imports, and a quarter of their time collections that find nothing
        try:
            from rollout.engine import VllmEngine

            self._engine = VllmEngine(self._settings)
        finally:
            gc.freeze()  # nor need what was loaded be looked through while generating
            gc.enable()
        return self._engine.version

    def load_weights(self, refs: Sequence[ray.ObjectRef], version: int) -> int:
        """Load weights, one bucket (a list of (name, array)) an object reference, and answer with the version.

        References come in a list, since Ray would fetch bare ones before the call. They are fetched one at a time.
        """
        engine = self._running()
        engine.load_weights((ray.get(ref) for ref in refs), version)
        self._policy.set(version)
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
        self._queue.set(num_left)
        for position, result in engine.stream(requests, version):
            prompt = result.prompt if isinstance(result, RolloutGroup) else None
            yield prompt
            yield WorkerResult(position, replace(result, prompt=None) if prompt is not None else result)
            num_left -= 1
            self._queue.set(num_left)
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
        num_tokens, seconds = after.num_tokens - before.num_tokens, after.generate_s - before.generate_s
        if num_tokens:
            self._tokens.inc(num_tokens)
            self._speed.set(num_tokens / seconds)
        if after.num_failures > before.num_failures:
            self._failures.inc(after.num_failures - before.num_failures)
