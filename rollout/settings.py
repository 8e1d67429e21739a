"""What a rollout engine is made from and what it is asked: frozen values that travel to the Ray actors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from owlcap.config import MotionSection, RlRun, RolloutSection, VideoSection
from owlcap.errors import ConfigError
from owlcap.types import Sample, SamplingSettings


@dataclass(frozen=True, slots=True)
class RolloutEngineSettings:
    """One vLLM engine. The same values on every worker of a pool.

    Raises:
        ConfigError: `max_prompt_tokens` leaves no room for a completion.
    """

    model: str  # a Hugging Face folder; the policy of version 0
    video: VideoSection = field(default_factory=VideoSection)
    motion: MotionSection = field(default_factory=MotionSection)
    rollout: RolloutSection = field(default_factory=RolloutSection)
    dtype: Literal["fp32", "bf16"] = "bf16"
    device: Literal["cpu", "cuda"] = "cpu"
    tensor_parallel: int = 1  # GPUs of one engine
    nccl_transfer: bool = False  # weights come through vLLM's weight-transfer API: see rollout.transfer
    can_sleep: bool = False  # its GPU is lent to a learner rank while that trains
    max_prompt_tokens: int = 8192
    threads: int = 1  # OMP threads of a CPU engine
    seed: int = 0  # of requests that bring no seed of their own
    logits_processors: tuple[str, ...] = ()  # vLLM's custom ones, module:Class

    def __post_init__(self) -> None:
        if self.max_prompt_tokens >= self.rollout.max_model_len:
            raise ConfigError(
                f"max_prompt_tokens is {self.max_prompt_tokens}, which leaves no room for a completion",
                where="rollout.max_model_len",
                allowed=f"below rollout.max_model_len ({self.rollout.max_model_len})",
                cure="raise rollout.max_model_len or lower data.max_prompt_tokens",
            )

    @classmethod
    def from_run(cls, run: RlRun) -> RolloutEngineSettings:
        """The engine that an RL run's configuration describes."""
        return cls(
            model=run.model.path,
            video=run.video,
            motion=run.motion,
            rollout=run.rollout,
            dtype=run.model.dtype,
            device="cuda" if run.cluster.gpus_per_rollout else "cpu",
            tensor_parallel=run.cluster.tensor_parallel,
            can_sleep=run.cluster.colocate,
            nccl_transfer=run.cluster.settled(run.pipeline.mode).weight_transfer == "nccl",
            max_prompt_tokens=run.data.max_prompt_tokens,
            threads=run.cluster.threads_per_actor,
            seed=run.seed,
        )


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to complete `sampling.num_completions` times.

    Completion i of a seeded request draws from the seed `sampling.seed + i`: requests that must differ need seeds
    further apart than their number of completions.
    """

    sample: Sample
    sampling: SamplingSettings
    return_prompt: bool = True  # hand back token ids and pixels, for the learner


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """What an engine has done since it started."""

    num_decoded: int = 0  # clips decoded
    num_processed: int = 0  # runs of the video processor
    num_groups: int = 0
    num_failures: int = 0
    num_tokens: int = 0  # sampled
    generate_s: float = 0.0  # wall time with requests in the engine


def media_limits(motion: MotionSection) -> dict[str, Any]:
    """vLLM's `limit_mm_per_prompt`: one video, and with the motion pathway its overlays of at most the largest size."""
    if not motion.enabled:
        return {"image": 0, "video": 1}
    side = math.isqrt(motion.max_pixels)  # memory is measured with pictures of this size
    return {"image": {"count": motion.max_overlays, "width": side, "height": side}, "video": 1}
