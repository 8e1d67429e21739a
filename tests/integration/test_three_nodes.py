"""The loop on a Ray cluster of three nodes, played by as many raylets on this machine, that loses nodes.

Sizes leave one way to place the run: a learner rank fills the head node and another one node B; engines and rewards
only fit on the third. A fourth is full until the third is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from owlcap.errors import PlacementError
from owlcap.metrics import read_metrics
from owlcap.runs import RunDir
from owlcap.training.checkpoint import CheckpointStore, load_meta
from rl.trainer import run_rl
from tests.integration.toy_run import config, prompts_of

pytestmark = pytest.mark.slow

PLACEMENT = {
    "num_nodes": 3,
    "learner_ranks": 2,
    "cpus_per_learner": 3.0,
    "rollout_workers": 2,
    "cpus_per_rollout": 0.9,
    "cpus_per_reward": 0.05,
    "placement_deadline_s": 15.0,
}
QUICK_TO_MISS_A_NODE = {"health_check_period_ms": 500, "health_check_timeout_ms": 2000}
ROLLOUT = {
    "group_size": 3,
    "prompts_per_step": 4,
    "max_new_tokens": 12,
    "max_model_len": 128,
    "max_num_seqs": 16,
    "kv_cache_gib": 0.1,
    "max_restarts": 10,  # a replacement may be sent to the lost node again before Ray knows of the loss
}
# A node that is lost during an update takes prompts with it, and the learner ranks that wait for them start again.
NO_PLACE = r"rollout workers found no place within 15 s|learner ranks could not be placed: not placed within 15 s"
NUM_STEPS = 6
POLL_S = 0.02


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Head and node B, of 3 CPUs each."""
    head = {"num_cpus": 3, "include_dashboard": False, "_system_config": QUICK_TO_MISS_A_NODE}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(num_cpus=3)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@contextmanager
def when(file: Path, act: Callable[[], None]) -> Iterator[None]:
    """Act in another thread once a file is there."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            if file.exists():
                act()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def engine_node(cluster: Cluster) -> Any:
    """Another node that has room for engines and rewards."""
    return cluster.add_node(num_cpus=2)


@ray.remote
class Squatter:
    """Fills a node."""

    def ready(self) -> None: ...


def fill(node: Any) -> Any:
    """An actor that leaves a node no room."""
    here = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    squatter = Squatter.options(num_cpus=2, scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    ray.get(squatter.ready.remote())
    return squatter


def nodes_of(kind: str) -> set[str]:
    """Nodes on which actors of a class are alive."""
    table = ray._private.state.actors().values()
    return {row["Address"]["NodeID"] for row in table if row["ActorClassName"] == kind and row["State"] == "ALIVE"}


def test_a_lost_nodes_engines_move_and_without_room_the_run_stops_and_can_be_resumed(
    cluster: Cluster, world: Path, tmp_path: Path
) -> None:
    third, spare = engine_node(cluster), engine_node(cluster)
    squatter = fill(spare)
    cfg = config(
        world,
        tmp_path,
        num_steps=NUM_STEPS,
        cluster=PLACEMENT | {"ray_address": cluster.address},
        rollout=ROLLOUT,
        evaluation={},
        checkpoint={"every_steps": 1, "keep": 1},
    )
    run = RunDir(tmp_path / "run")
    seen: dict[str, set[str]] = {}

    def lose_the_third() -> None:
        seen.update({kind: nodes_of(kind) for kind in ("LearnerWorker", "RolloutWorker")})
        ray.kill(squatter)
        cluster.remove_node(third, allow_graceful=False)

    def lose_the_spare_too() -> None:
        cluster.remove_node(spare, allow_graceful=False)

    with (
        when(run.rollouts_file(2), lose_the_third),
        when(run.rollouts_file(5), lose_the_spare_too),
        pytest.raises(PlacementError, match=NO_PLACE),
    ):
        run_rl(cfg)
    assert len(seen["LearnerWorker"]) == 2
    assert seen["RolloutWorker"] == {third.node_id}
    checkpoint = CheckpointStore(run.checkpoints, 1).latest()
    assert checkpoint is not None
    assert load_meta(checkpoint).step >= 4

    engine_node(cluster)
    run_rl(cfg, resume=True)
    rows = [row for row in read_metrics(run) if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, NUM_STEPS + 1))
    assert any(row["rollout/restarts"] for row in rows)
    assert all(len(set(prompts_of(run, step))) == 4 for step in range(1, NUM_STEPS + 1))
