"""The process an engine lives in: environment variables that must be set before vLLM is imported."""

from __future__ import annotations

from pathlib import Path

from rollout.settings import RolloutEngineSettings


def engine_environment(settings: RolloutEngineSettings) -> dict[str, str]:
    """Environment variables for a worker process that will hold one engine."""
    variables = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the scheduler and the model in the actor's own process
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",  # while starting; WARNING once it runs (see rollout.startup)
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if Path(settings.model).is_dir():
        variables["HF_HUB_OFFLINE"] = "1"  # everything is in the folder: no look-ups that wait for a network
    if settings.device == "cpu":
        variables["OMP_NUM_THREADS"] = str(settings.threads)
        # Even an eager engine compiles its first request with logprobs otherwise, for 2 to 11 s.
        variables["TORCHDYNAMO_DISABLE"] = "1"
    if settings.tensor_parallel > 1:
        variables["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        variables["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # weights reach the other ranks by pickle
    return variables
