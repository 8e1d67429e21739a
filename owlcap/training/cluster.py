"""Starting Ray, or joining a cluster that runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from owlcap.config import ClusterSection
from owlcap.errors import PlacementError


@contextmanager
def start_ray(cluster: ClusterSection, run_dir: Path | None = None, *, num_cpus: int | None = None) -> Iterator[None]:
    """Ray for the length of a `with` block.

    With `ray_address: null` a new local cluster is started, never another's joined, and stopped at the end.
    Inside a program that has already called `ray.init` (a test, a notebook, a Ray job) that one is used and
    left running.

    Args:
        run_dir: its `logs/ray.txt` names Ray's own log folder, if given.
        num_cpus: what a local cluster believes it has; null: the machine's.

    Raises:
        PlacementError: the named cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    address = cluster.ray_address or "local"
    try:
        context: Any = ray.init(
            address=address,
            num_cpus=num_cpus if address == "local" else None,
            include_dashboard=False if address == "local" else None,
            logging_level=logging.ERROR,
            log_to_driver=False,  # what actors print is in Ray's logs; the terminal belongs to the driver
        )
    except (ConnectionError, ValueError) as error:
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
            (logs / "ray.txt").write_text(f"{context.address_info['session_dir']}\n", encoding="utf-8")
        yield
    finally:
        ray.shutdown()
