"""Starting Ray, or joining a cluster that runs."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from owlcap.config import ClusterSection
from owlcap.errors import PlacementError

REACH_DEADLINE_S = 5.0  # for a head node to take a connection; Ray itself would try for minutes


GPU_SHARE = 0.5  # of a GPU that a learner rank and an engine use in turns, as Ray counts it


@contextmanager
def shared_bundles(cluster: ClusterSection) -> Iterator[PlacementGroup]:
    """A place for each learner rank with the engine beside it (cluster.colocate), for the length of a `with` block.

    Raises:
        PlacementError: the cluster cannot give the resources within `placement_deadline_s`.
    """
    cpus = cluster.cpus_per_learner + cluster.cpus_per_rollout
    group = placement_group([{"CPU": cpus, "GPU": 1.0}] * cluster.learner_ranks, strategy="PACK")
    try:
        try:
            ray.get(group.ready(), timeout=cluster.placement_deadline_s)
        except GetTimeoutError:
            raise PlacementError(
                f"shared GPUs were not placed within {cluster.placement_deadline_s:g} s",
                where=f"wanted {cluster.learner_ranks} times {cpus:g} CPU and 1 GPU; {free_resources()}",
                cure="lower cluster.learner_ranks and rollout_workers, or cluster.cpus_per_*, or add nodes; then go on "
                "with --resume",
            ) from None
        yield group
    finally:
        remove_placement_group(group)


def bundle_of(group: PlacementGroup, index: int) -> PlacementGroupSchedulingStrategy:
    """Where rank and engine number `index` go."""
    return PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)


@contextmanager
def start_ray(cluster: ClusterSection, run_dir: Path | None = None, *, num_cpus: int | None = None) -> Iterator[None]:
    """Ray for the length of a `with` block.

    With `ray_address: null` a new local cluster is started, never another's joined, and stopped at the end.
    Inside a program that has already called `ray.init` (a test, a notebook, a Ray job) that one is used and
    left running.

    Args:
        run_dir: its `logs/ray.txt` names Ray's own log folder and the metrics ports of the nodes, if given.
        num_cpus: what a local cluster believes it has; null: the machine's.

    Raises:
        PlacementError: the named cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    address = cluster.ray_address or "local"
    try:
        _reach(address)
        context: Any = ray.init(
            address=address,
            num_cpus=num_cpus if address == "local" else None,
            include_dashboard=False if address == "local" else None,
            logging_level=logging.ERROR,
            log_to_driver=False,  # what actors print is in Ray's logs; the terminal belongs to the driver
        )
    except (OSError, ValueError) as error:  # a ConnectionError is an OSError
        raise PlacementError(
            f"no Ray cluster answers: {error}",
            where=f"cluster.ray_address={cluster.ray_address}",
            allowed="null (this machine), auto, or host:port of a running head node",
            cure="start one with `ray start --head`, or set cluster.ray_address=null",
        ) from error
    try:
        if run_dir is not None:
            logs = run_dir / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            nodes = [node for node in ray.nodes() if node["Alive"]]
            ports = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in nodes]
            text = "\n".join([context.address_info["session_dir"], *ports])
            (logs / "ray.txt").write_text(f"{text}\n", encoding="utf-8")
        yield
    finally:
        ray.shutdown()


def free_resources() -> str:
    """What the joined cluster has left, for messages: "2 nodes have 0.5 of 4 CPU, 0 of 2 GPU free"."""
    free, total = ray.available_resources(), ray.cluster_resources()
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    kinds = ", ".join(f"{free.get(kind, 0):g} of {total.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
    return f"{nodes} node{'s have' if nodes != 1 else ' has'} {kinds} free"


def _reach(address: str) -> None:
    """Raise OSError unless something listens at host:port; other forms ("local", "auto") pass."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_DEADLINE_S).close()
