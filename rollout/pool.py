"""N rollout actors as one: prompts go in, groups come out as they finish, weights are synced to all.

Prompt i goes to worker i mod N and stays with it, so that the same call gives the same batches in every engine, and
a resumed run the same tokens. A worker that dies, breaks or gives no group for `rollout.group_deadline_s` is
replaced; its replacement loads the last synced weights and gets the prompts that were not answered, once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import ray
from ray import ObjectRef

from owlcap.config import ClusterSection
from owlcap.errors import OwlcapError, RolloutError
from owlcap.logging import get_logger
from owlcap.training.buckets import WeightDigest
from owlcap.types import RolloutFailure, RolloutGroup
from rollout.settings import EngineCounters, GenerationRequest, RolloutEngineSettings
from rollout.slot import Stream, SyncedWeights, WorkerLostError, WorkerSlot, end_all, fetch, wait_for_places
from rollout.transfer import EngineActors
from rollout.worker import RolloutWorker

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

logger = get_logger(__name__)
BATCH_S = 0.001  # a running engine: of many, a few times a second some have something; each look is at all of them


class RolloutPool:
    """The rollout engines of a run. Ray must have been started.

    Args:
        settings: of every engine.
        cluster: how many workers, what each asks for, and how long to wait for them.
        worker_class: the actor; another one stands in for engines when the pool itself is measured.
        shared: bundles, one a worker, whose GPUs the learner uses too: see owlcap.training.cluster.

    Raises:
        PlacementError: the cluster has no room for a worker within `placement_deadline_s`.
        RolloutError: an engine died while loading, or did not load within `start_deadline_s`.
        ModelError: the model folder cannot be used.
    """

    def __init__(
        self,
        settings: RolloutEngineSettings,
        cluster: ClusterSection,
        worker_class: type = RolloutWorker,
        shared: PlacementGroup | None = None,
    ) -> None:
        self._settings, self._cluster = settings, cluster
        self._synced: SyncedWeights | None = None
        self._is_open = True
        self._num_generating = 0  # calls of `generate` whose results are being taken
        self._slots = [WorkerSlot(i, settings, cluster, worker_class, shared) for i in range(cluster.rollout_workers)]
        try:
            wait_for_places(self._slots, cluster, cluster.placement_deadline_s)
            deadline = time.monotonic() + cluster.start_deadline_s
            for slot in self._slots:
                slot.check_startup(max(0.0, deadline - time.monotonic()))
        except BaseException:
            for slot in self._slots:
                slot.kill()
            raise

    def __len__(self) -> int:
        return len(self._slots)

    def __enter__(self) -> RolloutPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def version(self) -> int:
        """Policy version that all workers hold."""
        return 0 if self._synced is None else self._synced.version

    @property
    def num_restarts(self) -> int:
        """Workers replaced so far."""
        return sum(slot.num_restarts for slot in self._slots)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        """Yield one result a request, as they finish. A group's `prompt` is an object reference owned by the caller.

        Raises:
            RolloutError: a worker failed more often than `rollout.max_restarts`, or holds another policy version;
                the pool is closed, which another thread may do meanwhile.
            PlacementError: the cluster has no room left for a replacement within `placement_deadline_s`.
        """
        self._check_open()
        size, version = len(self._slots), self.version
        streams: dict[WorkerSlot, Stream] = {}
        for slot in self._slots[: len(requests)]:
            share = {i: requests[i] for i in range(slot.index, len(requests), size)}
            streams[slot] = slot.begin(share, version)
        self._num_generating += 1
        try:
            yield from self._results(streams)
        finally:
            self._num_generating -= 1

    def sync(self, refs: Sequence[ObjectRef], version: int) -> None:
        """Load weights into every worker, and return when all hold `version`.

        All or nothing: the pool's version rises when every worker has verified and loaded the weights. A worker that
        dies, breaks half-way or is not done in `cluster.sync_deadline_s` is replaced. After an error the pool keeps
        its old version, which workers that did load refuse to generate for: sync again.

        Args:
            refs: one object reference a bucket, each a `owlcap.training.buckets.WeightBucket`. They are kept until
                the next sync, for workers that must be replaced.
            version: of the policy; completions carry it.

        Raises:
            RolloutError: groups are being generated, weights are missing or not those that were put, or a worker
                cannot be made to load them.
        """
        self._check_idle()
        kept = tuple(refs)
        weights = SyncedWeights(lambda: kept, version)
        self._finish_sync([slot.load(weights) for slot in self._slots], weights)

    def receive(
        self, send: Callable[[EngineActors], WeightDigest], later: Callable[[], Sequence[ObjectRef]], version: int
    ) -> WeightDigest:
        """As `sync`, with weights that the learner itself sends to all workers at the same time.

        All workers must be there when it begins: those that are gone are replaced first. If it breaks off all are
        replaced, since each may be left waiting for the others.

        Args:
            send: has the learner send to these actors, under its own deadline; what was sent.
            later: buckets of the same weights, for a worker that must be replaced until the next sync.

        Raises:
            OwlcapError: as `sync`, or what `send` raised.
        """
        self._check_idle()
        self._all_answer([slot.ping() for slot in self._slots])
        try:
            sent = send(EngineActors(tuple(slot.actor for slot in self._slots), self._settings.tensor_parallel))
        except OwlcapError:
            for slot in self._slots:
                slot.restart("a transfer of weights broke off", None)
            raise
        weights = SyncedWeights(later, version)
        self._finish_sync([slot.commit(sent.checksum, version) for slot in self._slots], weights)
        return sent

    def sleep(self) -> None:
        """Have all workers give up their GPUs' memory until the next sync, which wakes them.

        A worker that does not is killed, since the memory is needed; the next sync replaces it.
        """
        self._check_idle()
        calls = [slot.actor.sleep.remote() for slot in self._slots]
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=self._cluster.sync_deadline_s)
        for slot, call in zip(self._slots, calls, strict=True):
            try:
                if call not in done:
                    raise WorkerLostError("the engine did not go to sleep", where=f"worker {slot.index}")
                fetch(call)
            except WorkerLostError as error:
                logger.warning("rollout worker %d is killed: %s", slot.index, error)
                slot.kill()

    def versions(self) -> tuple[int, ...]:
        """Policy version that each worker says it holds; one that is gone says nothing, and is replaced when used."""
        held = []
        for slot in self._slots:
            try:
                held.append(fetch(slot.actor.version.remote()))
            except WorkerLostError:
                continue
        return tuple(held)

    def counters(self) -> tuple[EngineCounters, ...]:
        """What each worker's present engine has done."""
        return tuple(fetch(slot.actor.counters.remote()) for slot in self._slots)

    def close(self) -> None:
        """End all workers."""
        self._is_open = False
        end_all(self._slots)
        self._slots = []

    def _results(self, streams: dict[WorkerSlot, Stream]) -> Iterator[RolloutGroup | RolloutFailure]:
        while streams:
            for slot in self._ready_slots(streams):
                try:
                    taken = slot.take(streams[slot])
                except WorkerLostError as error:
                    self._reissue(slot, streams, str(error))
                    continue
                if taken is not None:
                    if not streams[slot].unfinished:
                        del streams[slot]
                    yield taken[1]

    def _ready_slots(self, streams: dict[WorkerSlot, Stream]) -> list[WorkerSlot]:
        """Wait until a stream has something, and replace the workers that are overdue."""
        owners = {stream.generator: slot for slot, stream in streams.items()}
        first = min(stream.deadline for stream in streams.values())
        waitables = list(owners)
        ready, _ = ray.wait(waitables, num_returns=1, timeout=max(0.0, first - time.monotonic()), fetch_local=False)
        if ready and len(waitables) > 1:  # and whatever else is there, or will be in a moment
            time.sleep(BATCH_S * len(waitables))
            ready, _ = ray.wait(waitables, num_returns=len(waitables), timeout=0, fetch_local=False)
        now = time.monotonic()
        for slot, stream in list(streams.items()):
            if stream.deadline >= now or stream.generator in ready:
                continue
            if stream.starting:
                slot.expect_start(stream)
            else:
                self._reissue(slot, streams, f"no group within {self._settings.rollout.group_deadline_s:g} s")
        return [owners[generator] for generator in ready]

    def _check_open(self) -> None:
        if not self._is_open:
            raise RolloutError("this rollout pool is closed", cure="make a new RolloutPool")

    def _reissue(self, slot: WorkerSlot, streams: dict[WorkerSlot, Stream], reason: str) -> None:
        self._check_open()
        slot.restart(reason, self._synced)
        streams[slot] = slot.begin(streams[slot].unfinished, self.version, starting=True)

    def _check_idle(self) -> None:
        self._check_open()
        if self._num_generating:
            raise RolloutError(
                "weights cannot change while groups are being generated",
                where="RolloutPool.sync",
                cure="take all results of `generate`, or close it, first",
            )

    def _finish_sync(self, calls: list[ObjectRef], weights: SyncedWeights) -> None:
        """Wait for one call a worker, which bring it to these weights."""
        self._all_answer(calls, weights)
        self._synced = weights

    def _all_answer(self, calls: list[ObjectRef], weights: SyncedWeights | None = None) -> None:
        """Wait until all workers have done what is queued; those that are lost start again, with `weights` to load.

        Raises:
            RolloutError: a worker refused, or holds another version than that of `weights`.
        """
        ray.wait(calls, num_returns=len(calls), timeout=self._cluster.sync_deadline_s)
        refusals: list[RolloutError] = []
        waiting, timeout_s = self._slots, 0.0
        while waiting:
            lost = []  # all of a lost node's workers start again side by side
            for slot in waiting:  # all of them, lest one's refusal be taken for that of the next sync
                try:
                    if not self._has_answered(slot, weights, timeout_s):
                        lost.append(slot)
                except RolloutError as error:
                    refusals.append(error)
            wait_for_places(lost, self._cluster, self._cluster.placement_deadline_s)
            waiting, timeout_s = lost, 2 * self._cluster.start_deadline_s
        if refusals:
            raise refusals[0]

    def _has_answered(self, slot: WorkerSlot, weights: SyncedWeights | None, timeout_s: float) -> bool:
        """Whether a worker has done its part; one that was lost is launched again."""
        try:
            loaded = slot.check_startup(timeout_s)
        except WorkerLostError as error:
            slot.restart(str(error), weights)
            return False
        if weights is not None and loaded != weights.version:
            raise RolloutError(f"rollout worker {slot.index} holds policy version {loaded}, not {weights.version}")
        return True
