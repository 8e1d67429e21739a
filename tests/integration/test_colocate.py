"""Learner ranks and engines in shared bundles. Ray counts GPUs that this machine does not have; all else is real."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import ray
from verl.single_controller.base.decorator import register

from owlcap.config import (
    AlgorithmSection,
    ClusterSection,
    DeepSpeedSection,
    ModelSection,
    OptimizerSection,
    VideoSection,
)
from owlcap.errors import PlacementError
from owlcap.training.cluster import shared_bundles
from owlcap.training.group import make_worker_group, stop_worker_group
from owlcap.training.worker import ONE_TO_ALL, TrainingSpec
from rl.learner import LearnerWorker, LearningSpec
from rollout.pool import RolloutPool
from rollout.settings import RolloutEngineSettings
from rollout.worker import WorkerPlace

pytestmark = pytest.mark.slow
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module

CLUSTER = ClusterSection(
    learner_ranks=2,
    gpus_per_learner=1,
    cpus_per_learner=0.5,
    rollout_workers=2,
    gpus_per_rollout=1,
    cpus_per_rollout=0.5,
    colocate=True,
    placement_deadline_s=60.0,
)


class Engine:
    """A rollout worker without an engine; `version` says on which GPU it is."""

    def __init__(self, settings: RolloutEngineSettings, index: int) -> None: ...

    def place(self) -> WorkerPlace:
        return WorkerPlace(ray.get_runtime_context().get_node_id(), os.getpid())

    def start(self) -> int:
        return 0

    def sleep(self) -> None: ...

    def load_weights(self, refs: Sequence[ray.ObjectRef], version: int) -> int:
        return version

    def version(self) -> int:
        return int(ray.get_gpu_ids()[0])

    def close(self) -> None: ...


class Rank(LearnerWorker):
    """With what Ray gave it."""

    @register(dispatch_mode=ONE_TO_ALL)
    def gpu(self) -> int:
        return int(ray.get_gpu_ids()[0])


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()


def spec(model: Path) -> tuple[TrainingSpec, LearningSpec]:
    training = TrainingSpec(
        model=ModelSection(path=str(model), dtype="fp32", gradient_checkpointing=False),
        video=VideoSection(),
        optimizer=OptimizerSection(lr=1e-3),
        deepspeed=DeepSpeedSection(zero_stage=2),
        total_steps=10,
        seed=0,
    )
    return training, LearningSpec(AlgorithmSection(), 1.0, 16, str(model))


def test_each_rank_shares_its_gpu_with_one_engine_which_outlives_it(tiny_policy: Path) -> None:
    settings = RolloutEngineSettings(str(tiny_policy))
    with shared_bundles(CLUSTER) as shared, RolloutPool(settings, CLUSTER, Engine, shared) as pool:
        pool.sleep()
        group = make_worker_group(Rank, spec(tiny_policy), CLUSTER, shared=shared)
        assert group.gpu() == list(pool.versions())
        assert sorted(pool.versions()) == [0, 1]
        stop_worker_group(group)
        assert sorted(pool.versions()) == [0, 1]
        assert pool.num_restarts == 0


def test_bundles_that_find_no_place_are_a_placement_error() -> None:
    wanted = CLUSTER.model_copy(update={"learner_ranks": 3, "rollout_workers": 3, "placement_deadline_s": 1.0})
    with pytest.raises(PlacementError, match="not placed within 1 s") as caught, shared_bundles(wanted):
        pass
    assert "3 times 1 CPU and 1 GPU" in str(caught.value)
    assert "of 2 GPU free" in str(caught.value)
