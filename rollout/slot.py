"""One place of the pool: an actor that holds an engine, its replacement after a death, and the results it streams."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from owlcap.config import ClusterSection
from owlcap.errors import OwlcapError, PlacementError, RolloutError, first_line
from owlcap.logging import actor_environment
from owlcap.training.cluster import GPU_SHARE, bundle_of, free_resources
from owlcap.types import RolloutFailure, RolloutGroup
from rollout.environment import engine_environment
from rollout.settings import GenerationRequest, RolloutEngineSettings
from rollout.worker import RolloutWorker, WorkerResult

if TYPE_CHECKING:
    from ray import ObjectRefGenerator  # type: ignore[attr-defined]
    from ray.util.placement_group import PlacementGroup

log = logging.getLogger(__name__)
CLOSE_DEADLINE_S = 15.0  # for an engine to end by itself; after it the process is killed
REPLY_DEADLINE_S = 30.0  # for answers that must be on their way, since a later call has answered


class WorkerLostError(RolloutError):
    """The actor died, hung or broke; a new one may do the work."""


@dataclass(frozen=True, slots=True)
class SyncedWeights:
    """The last weights sent to the pool: what a replacement must hold before it may generate."""

    refs: Callable[[], Sequence[ObjectRef]]  # one a bucket; asked for where they are needed
    version: int


@dataclass(slots=True)
class Stream:
    """A running `generate` call of one actor."""

    generator: ObjectRefGenerator
    positions: tuple[int, ...]  # in the pool's call, of this call's requests
    unfinished: dict[int, GenerationRequest]  # by position in the pool's call
    deadline: float  # by the monotonic clock, for the next result; of a starting actor, for its place
    starting: bool = False  # the actor has just been launched
    prompt: ObjectRef | None = field(default=None)  # arrived, its result has not


class WorkerSlot:
    """Keeps one rollout actor alive.

    Calls to an actor run in order, so a replacement is started, given the synced weights and given its prompts
    without waiting in between: it cannot generate before it holds the right weights.
    """

    def __init__(
        self,
        index: int,
        settings: RolloutEngineSettings,
        cluster: ClusterSection,
        worker_class: type = RolloutWorker,
        shared: PlacementGroup | None = None,
    ) -> None:
        self.index = index
        self._settings, self._cluster, self._worker_class = settings, cluster, worker_class
        self._shared = shared
        self.num_restarts = 0
        self._lost_on_its_way = False  # the replacement before this one
        self.actor: Any = None
        self.placed: ObjectRef
        self._unchecked: list[ObjectRef] = []  # calls that must have succeeded before the actor can generate
        self.launch()

    def launch(self) -> None:
        """Ask Ray for an actor and queue the loading of its engine."""
        options = ray.remote(self._worker_class).options(  # type: ignore[attr-defined]
            num_cpus=self._cluster.cpus_per_rollout,
            num_gpus=self._cluster.gpus_per_rollout if self._shared is None else GPU_SHARE,
            scheduling_strategy="DEFAULT" if self._shared is None else bundle_of(self._shared, self.index),
            max_restarts=0,  # replaced by this slot, which knows the weights to load
            runtime_env={"env_vars": engine_environment(self._settings) | actor_environment()},
        )
        self.actor = options.remote(self._settings, self.index)
        self.placed = self.actor.place.remote()
        self._unchecked = [self.actor.start.remote()]

    def load(self, weights: SyncedWeights) -> ObjectRef:
        """Queue the loading of weights; the reference of the version that the actor then holds."""
        call = self.actor.load_weights.remote(list(weights.refs()), weights.version)
        self._unchecked.append(call)
        return call

    def ping(self) -> ObjectRef:
        """Queue a call that only shows that the actor lives."""
        call = self.actor.place.remote()
        self._unchecked.append(call)
        return call

    def commit(self, checksum: int, version: int) -> ObjectRef:
        """Queue the end of a transfer; the reference of the version that the actor then holds."""
        call = self.actor.commit_weights.remote(checksum, version)
        self._unchecked.append(call)
        return call

    def check_startup(self, timeout_s: float) -> int:
        """Wait for what `launch` and `load` queued since the last check; the version loaded last.

        Raises:
            WorkerLostError: the actor died, broke, or is not done in time.
            OwlcapError: what the engine itself had to say, e.g. a ModelError.
        """
        done, waiting = ray.wait(self._unchecked, num_returns=len(self._unchecked), timeout=timeout_s)
        calls, self._unchecked = self._unchecked, []
        versions = [fetch(call) for call in calls if call in done]
        if waiting:
            raise WorkerLostError(f"the engine did not answer within {timeout_s:g} s", where=f"worker {self.index}")
        return versions[-1]

    def restart(self, reason: str, weights: SyncedWeights | None) -> None:
        """Replace the actor; the new one loads the synced weights first.

        One that was lost before it answered at all, as on a node that is gone but not known to be, is not counted
        unless the next is lost in the same way.

        Raises:
            RolloutError: this worker has been restarted `rollout.max_restarts` times already.
        """
        limit, on_its_way = self._settings.rollout.max_restarts, not self._has_answered()
        counts = not on_its_way or self._lost_on_its_way
        self._lost_on_its_way = on_its_way
        if counts and self.num_restarts >= limit:
            raise RolloutError(
                f"rollout worker {self.index} failed again after {limit} restarts",
                where=reason,
                cure="see the worker's log (Ray dashboard, or logs/ of the Ray session); rollout.max_restarts "
                "is the limit",
            )
        self.num_restarts += counts
        log.warning("rollout worker %d restarts (%d of %d): %s", self.index, self.num_restarts, limit, reason)
        ray.kill(self.actor)
        self.launch()
        if weights is not None:
            self.load(weights)

    def _has_answered(self) -> bool:
        """Whether the actor was ever heard of."""
        try:
            ray.get(self.placed, timeout=0)
        except RayError:
            return False
        return True

    def begin(self, requests: Mapping[int, GenerationRequest], version: int, *, starting: bool = False) -> Stream:
        """Queue a `generate` call for requests keyed by their position in the pool's call.

        Args:
            starting: the actor has just been launched: the deadline is for its place (`expect_start`).
        """
        generator = self.actor.generate.options(num_returns="streaming").remote(list(requests.values()), version)
        wait_s = self._cluster.placement_deadline_s if starting else self._settings.rollout.group_deadline_s
        return Stream(generator, tuple(requests), dict(requests), time.monotonic() + wait_s, starting)

    def expect_start(self, stream: Stream) -> None:
        """Give a stream whose actor should have found its place by now the time to load and to give a group.

        Raises:
            PlacementError: the actor has no place.
        """
        wait_for_places([self], self._cluster, 0.0)
        stream.starting = False
        stream.deadline = time.monotonic() + self._cluster.start_deadline_s + self._settings.rollout.group_deadline_s

    def take(self, stream: Stream) -> tuple[int, RolloutGroup | RolloutFailure] | None:
        """The next result of a stream that Ray says is ready, or None when only part of one has arrived.

        Raises:
            WorkerLostError: the actor died, broke, or ended with requests unfinished.
            OwlcapError: what the engine itself had to say.
        """
        if self._unchecked:  # a replacement: what it has to say about its start explains all that follows
            self.check_startup(REPLY_DEADLINE_S)
        ref = next(stream.generator, None)
        if ref is None:
            if stream.prompt is not None:  # what should have been a prompt was the call's last word
                fetch(stream.prompt)
            raise WorkerLostError("the stream ended with requests unfinished", where=f"worker {self.index}")
        if stream.prompt is None:
            stream.prompt = ref
            return None
        item: WorkerResult = fetch(ref)
        prompt, stream.prompt, stream.starting = stream.prompt, None, False
        stream.deadline = time.monotonic() + self._settings.rollout.group_deadline_s
        position = stream.positions[item.position]
        request = stream.unfinished.pop(position)
        if isinstance(item.result, RolloutGroup) and request.return_prompt:
            return position, replace(item.result, prompt=prompt)
        return position, item.result

    def close(self) -> ObjectRef:
        """Ask the engine to end."""
        return self.actor.close.remote()

    def kill(self) -> None:
        """End the process."""
        ray.kill(self.actor)


def fetch(ref: ObjectRef) -> Any:
    """The value of a finished call, with the actor's failure as one of our errors.

    Raises:
        WorkerLostError: the actor died, or raised something that leaves its engine in an unknown state.
        OwlcapError: raised by the actor's own code.
    """
    try:
        return ray.get(ref)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, OwlcapError):
            raise cause from error
        raise WorkerLostError(f"{type(cause).__name__}: {cause}") from error
    except RayError as error:
        raise WorkerLostError(first_line(error)) from error


def wait_for_places(slots: Sequence[WorkerSlot], cluster: ClusterSection, deadline_s: float) -> None:
    """Wait until every actor has its resources and its process.

    Raises:
        PlacementError: that was not so within the deadline.
    """
    places = [slot.placed for slot in slots]
    if not places:
        return
    placed, waiting = ray.wait(places, num_returns=len(places), timeout=deadline_s)
    if waiting:
        raise PlacementError(
            f"{len(waiting)} of {len(places)} rollout workers found no place within {cluster.placement_deadline_s:g} s",
            where=f"cluster.rollout_workers={cluster.rollout_workers}, each with {cluster.cpus_per_rollout:g} CPU "
            f"and {cluster.gpus_per_rollout} GPU; {free_resources()}",
            allowed=f"what the cluster has; it placed {len(placed)}",
            cure="lower cluster.rollout_workers or cluster.cpus_per_rollout, or add nodes; then go on with --resume",
        )


def end_all(slots: Sequence[WorkerSlot]) -> None:
    """End all actors: kindly within a deadline, then by force."""
    if not slots:
        return
    placed, _ = ray.wait([slot.placed for slot in slots], num_returns=len(slots), timeout=0)
    closing = [slot.close() for slot in slots if slot.placed in placed]
    if closing:
        ray.wait(closing, num_returns=len(closing), timeout=CLOSE_DEADLINE_S)
    for slot in slots:
        slot.kill()
