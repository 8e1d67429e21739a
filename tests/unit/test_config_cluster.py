"""Which placements and ways of sending weights are refused before anything starts, and what "auto" means."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from owlcap.config import ClusterSection, RlRun

GPUS = {"gpus_per_learner": 1, "gpus_per_rollout": 1}
SHARED = {**GPUS, "colocate": True}


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as caught:
        ClusterSection.model_validate(settings)
    return str(caught.value)


def rl_run(mode: str, **cluster: object) -> RlRun:
    sections = {"model": {"path": "m"}, "data": {"train": "d"}, "optimizer": {"lr": 1e-3}, "algorithm": {}}
    return RlRun.model_validate(sections | {"name": "r", "pipeline": {"mode": mode}, "cluster": cluster})


@pytest.mark.parametrize(
    ("settings", "mode", "transfer"),
    [
        ({}, "overlap", "shared_memory"),
        (GPUS, "overlap", "nccl"),
        (GPUS, "sync", "nccl"),
        (GPUS, "async", "shared_memory"),
        (SHARED, "overlap", "shared_memory"),
        ({**GPUS, "weight_transfer": "shared_memory"}, "overlap", "shared_memory"),
    ],
)
def test_auto_is_nccl_between_gpus_that_are_not_shared(settings: dict, mode: str, transfer: str) -> None:
    assert ClusterSection.model_validate(settings).settled(mode).weight_transfer == transfer


def test_nccl_without_gpus_is_refused_with_the_cure() -> None:
    said = refusal(weight_transfer="nccl")
    assert "gpus_per_learner is 0" in said
    assert "set weight_transfer=auto or shared_memory" in said
    assert "colocate true" in refusal(**SHARED, weight_transfer="nccl")


def test_a_cpu_has_nothing_to_colocate() -> None:
    assert "vLLM's engine cannot sleep" in refusal(colocate=True)


def test_colocated_ranks_and_engines_come_in_pairs() -> None:
    said = refusal(**GPUS, colocate=True, learner_ranks=4, rollout_workers=2)
    assert "rollout_workers=4 (it is 2)" in said
    assert "tensor_parallel=1 (it is 2)" in refusal(
        gpus_per_learner=1, gpus_per_rollout=2, tensor_parallel=2, colocate=True
    )


@pytest.mark.parametrize("cluster", [SHARED, {**GPUS, "weight_transfer": "nccl"}])
def test_learner_and_engines_that_run_at_once_cannot_take_turns(cluster: dict) -> None:
    rl_run("overlap", **cluster)
    with pytest.raises(ValidationError, match=r"pipeline\.mode=overlap"):
        rl_run("async", **cluster)


def test_a_motion_actor_has_whole_gpus_or_a_part_of_one() -> None:
    assert ClusterSection(gpus_per_motion=0.25).gpus_per_motion == 0.25
    assert "part of one GPU or a whole number" in refusal(gpus_per_motion=1.5)
