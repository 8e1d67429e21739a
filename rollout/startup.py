"""Starting vLLM in this process, with what our settings mean in its arguments and what it need not do left out."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owlcap.errors import ModelError, RolloutError
from owlcap.models.load import MOTION_ARCHITECTURE, check_motion
from rollout import vllm_plugin
from rollout.environment import engine_environment
from rollout.settings import RolloutEngineSettings, media_limits

if TYPE_CHECKING:
    from vllm import LLM

ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"
MIN_BATCHED_TOKENS = 8192  # of one engine step; also the budget for encoded video tokens kept at a time
# Of one KV block. vLLM's default of 128 is longer than a toy prompt, and a group shares only full blocks.
CPU_BLOCK_TOKENS = 32


def start_vllm(settings: RolloutEngineSettings) -> LLM:
    """vLLM with the policy loaded, in this process.

    Raises:
        ModelError: the model folder does not exist, or has no motion merger where the motion pathway is on.
        RolloutError: vLLM was imported before, with another environment than its engine needs.
    """
    if not (Path(settings.model) / "config.json").is_file():
        raise ModelError(
            "the policy's folder has no config.json",
            where=settings.model,
            allowed="a Hugging Face folder with config, weights, tokenizer and processor",
            cure="correct model.path",
        )
    check_motion(settings.model, settings.motion)
    _check_environment(settings)
    # Whole GiB, and it would override rollout.kv_cache_gib. vLLM reads it as a number, so it cannot be set to "".
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    vllm_logger = logging.getLogger("vllm")
    vllm_logger.setLevel(logging.ERROR)  # while imported it warns of a missing Triton, whatever the variable says
    with _without_collections():
        llm = _start(settings)
    # A dozen harmless warnings at the start, then only those that say something about this run.
    vllm_logger.setLevel(logging.WARNING)
    # It repeats "CPU backend doesn't allow to use torch.set_num_threads" for every prompt.
    logging.getLogger("vllm.v1.worker.cpu_worker").setLevel(logging.ERROR)
    return llm


@contextmanager
def _without_collections() -> Iterator[None]:
    """Most of a start is imports, and a quarter of their time collections of garbage that find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor need what was loaded be looked through while generating
        if was_enabled:
            gc.enable()


def _start(settings: RolloutEngineSettings) -> LLM:
    import vllm

    vllm_plugin.register()  # vLLM does it where this project is installed, and not where it is only on the path
    if settings.device == "cpu":
        _skip_model_inspection()
    vllm_class = vllm.LLM  # imports most of vLLM
    gc.freeze()  # its constructor collects garbage three times, half a second each, in all that
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # from its look through loaded modules
        return vllm_class(**_arguments(settings))


def _check_environment(settings: RolloutEngineSettings) -> None:
    wanted = engine_environment(settings)["VLLM_ENABLE_V1_MULTIPROCESSING"]
    if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") != wanted:
        raise RolloutError(
            "this process is not set up for an in-process engine",
            where=f"VLLM_ENABLE_V1_MULTIPROCESSING={os.environ.get('VLLM_ENABLE_V1_MULTIPROCESSING')}",
            allowed=wanted,
            cure="set the variables of rollout.environment.engine_environment before the process starts",
        )


def _skip_model_inspection() -> None:
    """Register the model class itself, so that vLLM reads its properties from it.

    Given a class name, vLLM imports the class in a second process first, lest CUDA start in this one. On a CPU that
    costs every engine 10 s of a core the first time on a machine, and buys nothing.
    """
    from vllm import ModelRegistry
    from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

    from rollout.motion_model import MotionQwen2_5_VLForConditionalGeneration

    registry = logging.getLogger("vllm.model_executor.models.registry")
    level = registry.level
    registry.setLevel(logging.ERROR)  # it warns that the name is taken, which is the point
    ModelRegistry.register_model(ARCHITECTURE, Qwen2_5_VLForConditionalGeneration)
    ModelRegistry.register_model(MOTION_ARCHITECTURE, MotionQwen2_5_VLForConditionalGeneration)
    registry.setLevel(level)


def _arguments(settings: RolloutEngineSettings) -> dict[str, Any]:
    """Keyword arguments of `vllm.LLM`."""
    rollout, on_cpu = settings.rollout, settings.device == "cpu"
    arguments: dict[str, Any] = {
        "model": settings.model,
        "dtype": "float32" if settings.dtype == "fp32" else "bfloat16",
        "seed": settings.seed,
        "max_model_len": rollout.max_model_len,
        "max_num_seqs": rollout.max_num_seqs,
        "max_num_batched_tokens": max(rollout.max_model_len, MIN_BATCHED_TOKENS),
        "gpu_memory_utilization": rollout.gpu_memory_utilization,
        "tensor_parallel_size": settings.tensor_parallel,
        "enforce_eager": on_cpu or rollout.enforce_eager,
        "limit_mm_per_prompt": media_limits(settings.motion),
        "mm_processor_cache_gb": 0,  # a clip is processed once a group; another epoch is too far away to keep it for
        "mm_device_do_normalize": False,  # the learner takes the pixels as vLLM's processor leaves them: normalised
        # Logprobs of the distribution that was sampled from. At temperature 1 that is the raw one, without the ban.
        "logprobs_mode": "raw_logprobs" if rollout.temperature == 1.0 else "processed_logprobs",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if settings.can_sleep:
        arguments["enable_sleep_mode"] = True
    if settings.nccl_transfer:
        from vllm.config import WeightTransferConfig

        arguments["weight_transfer_config"] = WeightTransferConfig(backend="nccl")
    if settings.logits_processors:  # each step is scheduled when the tokens of the last one are known
        arguments |= {"logits_processors": list(settings.logits_processors), "async_scheduling": False}
    if rollout.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(rollout.kv_cache_gib * 2**30)
    if on_cpu:
        arguments |= {"block_size": CPU_BLOCK_TOKENS, "skip_mm_profiling": True}
    return arguments
