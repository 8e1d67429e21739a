"""Settings of an engine, and the environment its process needs."""

import pytest

from owlcap.config import (
    AlgorithmSection,
    ClusterSection,
    DataSection,
    ModelSection,
    OptimizerSection,
    RlRun,
    RolloutSection,
    VideoSection,
)
from owlcap.errors import ConfigError
from rollout.environment import engine_environment
from rollout.settings import RolloutEngineSettings


def run(**cluster: int) -> RlRun:
    return RlRun(
        name="r",
        seed=7,
        model=ModelSection(path="policy", dtype="fp32"),
        video=VideoSection(fps=4),
        data=DataSection(train="train.jsonl", max_prompt_tokens=100),
        optimizer=OptimizerSection(lr=1e-4),
        cluster=ClusterSection(threads_per_actor=3, **cluster),
        rollout=RolloutSection(max_model_len=200, max_new_tokens=50),
        algorithm=AlgorithmSection(),
    )


def test_an_engine_takes_its_settings_from_the_run():
    settings = RolloutEngineSettings.from_run(run())
    assert (settings.model, settings.dtype, settings.device) == ("policy", "fp32", "cpu")
    assert (settings.max_prompt_tokens, settings.threads, settings.seed) == (100, 3, 7)
    assert settings.video.fps == 4
    assert settings.rollout.max_model_len == 200


def test_gpus_of_a_rollout_worker_make_it_a_gpu_engine():
    settings = RolloutEngineSettings.from_run(run(gpus_per_rollout=2, tensor_parallel=2))
    assert (settings.device, settings.tensor_parallel) == ("cuda", 2)


def test_a_prompt_limit_that_leaves_no_room_for_a_completion_is_refused():
    with pytest.raises(ConfigError, match="leaves no room") as error:
        RolloutEngineSettings(model="policy", rollout=RolloutSection(max_model_len=64), max_prompt_tokens=64)
    assert error.value.where == "rollout.max_model_len"


def test_a_cpu_engine_does_not_compile_and_keeps_to_its_threads():
    variables = engine_environment(RolloutEngineSettings(model="policy", threads=2))
    assert variables["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert variables["TORCHDYNAMO_DISABLE"] == "1"
    assert variables["OMP_NUM_THREADS"] == "2"


def test_a_gpu_engine_may_compile_and_spawns_its_ranks():
    variables = engine_environment(RolloutEngineSettings(model="policy", device="cuda", tensor_parallel=2))
    assert not {"TORCHDYNAMO_DISABLE", "OMP_NUM_THREADS"} & variables.keys()
    assert variables["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"


def test_only_a_model_on_disk_is_loaded_offline(tmp_path):
    assert engine_environment(RolloutEngineSettings(model=str(tmp_path)))["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in engine_environment(RolloutEngineSettings(model="Qwen/Qwen2.5-VL-7B-Instruct"))
