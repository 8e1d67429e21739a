"""Worker groups: N ranks of one actor class, placed under a deadline and called under deadlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
from verl.single_controller.ray.base import get_master_addr_port

from owlcap.config import ClusterSection
from owlcap.errors import ConfigError, OwlcapError, PlacementError, TrainingError
from owlcap.logging import actor_environment
from owlcap.training.cluster import GPU_SHARE, free_resources
from owlcap.training.worker import TrainingWorker

DEATH_NOTICE_S = 10.0  # after one rank failed, for Ray to tell that another had died before


class LearnerLostError(TrainingError):
    """A rank died or hangs. The group is of no use any more; a new one may go on from the last checkpoint."""


class _Pool(RayResourcePool):
    """All ranks in one placement group, on as few nodes as Ray finds room on. verl's has no deadline."""

    def __init__(self, cluster: ClusterSection, deadline_s: float, shared: PlacementGroup | None) -> None:
        at_once = round(1 / GPU_SHARE) if shared else 1  # actors on one GPU
        super().__init__([cluster.learner_ranks], use_gpu=cluster.gpus_per_learner > 0, max_colocate_count=at_once)
        self.cluster, self.deadline_s = cluster, deadline_s
        self.pgs = [shared] if shared else None
        self.is_shared = shared is not None

    def get_placement_groups(
        self, strategy: str = "PACK", name: str | None = None, device_name: str = "cuda"
    ) -> list[PlacementGroup]:
        """One placement group, one bundle a rank; whatever strategy verl asks for.

        Raises:
            PlacementError: the cluster cannot give the resources within the deadline.
        """
        if self.pgs is None:
            group = placement_group([rank_resources(self.cluster)] * self.cluster.learner_ranks, strategy="PACK")
            try:
                ray.get(group.ready(), timeout=self.deadline_s)
            except GetTimeoutError:
                remove_placement_group(group)
                raise placement_error(self.cluster, f"not placed within {self.deadline_s:g} s") from None
            self.pgs = [group]
        return self.pgs


class WorkerGroup(RayWorkerGroup):
    """verl's group: every registered method of the worker class is a method here, returning one value a rank.

    The rendezvous task asks for no CPU: in bundles of less than one CPU verl's own never starts.
    """

    if TYPE_CHECKING:  # the methods are bound when the group is made

        def __getattr__(self, name: str) -> Any: ...

    def _get_master_addr_port(
        self, pg: PlacementGroup, bundle_index: int = 0, master_port_range: list[int] | None = None
    ) -> None:
        strategy = PlacementGroupSchedulingStrategy(placement_group=pg, placement_group_bundle_index=bundle_index)
        task = get_master_addr_port.options(num_cpus=0, scheduling_strategy=strategy)
        self._master_addr, self._master_port = ray.get(task.remote(master_port_range))  # type: ignore[arg-type]


def make_worker_group(
    worker_cls: type[TrainingWorker],
    args: tuple[object, ...],
    cluster: ClusterSection,
    deadline_s: float | None = None,
    shared: PlacementGroup | None = None,
) -> WorkerGroup:
    """Start `cluster.learner_ranks` actors of `worker_cls(*args)`; their process group is joined, no model loaded.

    Args:
        args: of the class's constructor, the same on every rank (a TrainingSpec first).
        deadline_s: for placement; default `cluster.placement_deadline_s`.
        shared: bundles to use, one a rank, that others use too and that outlive the group.

    Raises:
        PlacementError: resources that the cluster does not have, with wanted against available.
        ConfigError: gpus_per_learner above 1 (a DeepSpeed rank drives one GPU).
    """
    if cluster.gpus_per_learner > 1:
        raise ConfigError(
            f"cluster.gpus_per_learner is {cluster.gpus_per_learner}",
            allowed="0 (CPU) or 1",
            cure="one rank drives one GPU: raise cluster.learner_ranks instead",
        )
    deadline_s = cluster.placement_deadline_s if deadline_s is None else deadline_s
    if shared is None:
        _check_room(cluster)
    pool = _Pool(cluster, deadline_s, shared)
    cls = RayClassWithInitArgs(ray.remote(worker_cls), *args)
    cls.update_options({"num_cpus": cluster.cpus_per_learner})
    device = "cuda" if cluster.gpus_per_learner else "cpu"
    return WorkerGroup(pool, cls, device_name=device, worker_env=worker_env(cluster))


def stop_worker_group(group: WorkerGroup) -> None:
    """Kill the group's actors and free their resources."""
    for worker in group.workers:
        ray.kill(worker)
    pool: _Pool = group.resource_pool
    for placed in () if pool.is_shared else pool.pgs or ():
        remove_placement_group(placed)


def gather(refs: Sequence[ray.ObjectRef], deadline_s: float, doing: str) -> list[Any]:
    """Results of a non-blocking group call, one a rank, in rank order.

    Args:
        refs: what the group's method returned.
        doing: for messages, e.g. "loading the policy".

    Raises:
        LearnerLostError: a rank died, or the deadline passed.
        OwlcapError: whatever a rank raised, as it was.
    """
    try:
        return ray.get(list(refs), timeout=deadline_s)
    except GetTimeoutError:
        done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
        late = [rank for rank, ref in enumerate(refs) if ref not in done]
        raise LearnerLostError(
            f"{doing} did not end within {deadline_s:g} s on learner ranks {late}",
            cure="see the ranks' logs under the run's logs/ folder or in the Ray dashboard",
        ) from None
    except RayTaskError as error:
        if isinstance(error.cause, OwlcapError):
            raise error.cause from error
        _raise_if_lost(refs, doing)  # the other ranks then fail in their collectives, and may be heard first
        raise
    except RayError:
        _raise_if_lost(refs, doing)
        raise


def _raise_if_lost(refs: Sequence[ray.ObjectRef], doing: str) -> None:
    """Raise LearnerLostError if a rank is dead or could not get at its inputs."""
    for patience_s in (0.0, DEATH_NOTICE_S):  # Ray may tell of a collective that failed before it tells of the death
        done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=patience_s)
        for rank, ref in enumerate(refs):
            if ref in done:
                _raise_if_rank_lost(rank, ref, doing)


def _raise_if_rank_lost(rank: int, ref: ray.ObjectRef, doing: str) -> None:
    try:
        ray.get(ref)
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, RayError):
            why = str(cause).strip().splitlines()
            raise LearnerLostError(
                f"learner rank {rank} {'lost its inputs' if cause is not error else 'died'} while {doing}",
                where=why[0] if why else None,
                cure="the ranks' logs say more; if it was out of memory, lower tokens_per_micro_batch or raise "
                "the ZeRO stage; then go on with --resume",
            ) from error


def rank_resources(cluster: ClusterSection) -> dict[str, float]:
    """Ray resources of one learner rank."""
    resources: dict[str, float] = {"CPU": cluster.cpus_per_learner}
    if cluster.gpus_per_learner:
        resources["GPU"] = cluster.gpus_per_learner
    return resources


def worker_env(cluster: ClusterSection) -> dict[str, str]:
    """Environment of a rank; set before its process imports torch."""
    env = actor_environment() | {"OMP_NUM_THREADS": str(cluster.threads_per_actor), "TOKENIZERS_PARALLELISM": "false"}
    env["PYTHONWARNINGS"] = "ignore::FutureWarning,ignore::DeprecationWarning"  # of torch, met by DeepSpeed
    if not cluster.gpus_per_learner:
        env["DS_ACCELERATOR"] = "cpu"
    return env


def _check_room(cluster: ClusterSection) -> None:
    """Raise PlacementError at once if this machine can never hold the ranks; a named cluster may grow."""
    want = rank_resources(cluster)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(kind, 0) / each + 1e-9) for kind, each in want.items()) for node in nodes)
    if cluster.ray_address is None and room < cluster.learner_ranks:
        raise placement_error(cluster, "more than this machine has")


def placement_error(cluster: ClusterSection, why: str) -> PlacementError:
    """PlacementError with what the learner wants and what the cluster has left."""
    each = ", ".join(f"{v:g} {k}" for k, v in rank_resources(cluster).items())
    return PlacementError(
        f"learner ranks could not be placed: {why}",
        where=f"wanted {cluster.learner_ranks} ranks of {each} each; {free_resources()}",
        cure="lower cluster.learner_ranks or cluster.cpus_per_learner, stop other jobs, or add nodes; then go on with "
        "--resume",
    )
