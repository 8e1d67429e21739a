"""The base of all training actors: one rank of a DeepSpeed group, on verl's single controller.

A subclass (sft.worker, rl.learner) adds its own step methods, decorated with verl's `register`. All
methods here are non-blocking on the driver and return one Ray reference a rank; wait for them with
`owlcap.training.group.gather`, which has a deadline.
"""

from __future__ import annotations

import logging
import random
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import Dispatch, register

from owlcap.config import (
    DeepSpeedSection,
    FeaturesSection,
    ModelSection,
    MotionSection,
    OptimizerSection,
    VideoSection,
)
from owlcap.logging import get_logger, setup_actor_logging
from owlcap.models.load import check_motion, load_policy, load_processor, save_policy
from owlcap.models.lora import base_fingerprint
from owlcap.ray_metrics import LearnerMetrics, count
from owlcap.training.checkpoint import Adapters, Layout, sync_tree, write_error
from owlcap.training.engine import StepStats, TrainingEngine

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

# verl adds these members to its enumeration at run time, out of a type checker's sight.
ONE_TO_ALL = Dispatch.ONE_TO_ALL  # type: ignore[attr-defined]  # every rank gets the same arguments
PER_RANK = Dispatch.DP_COMPUTE  # type: ignore[attr-defined]  # every argument is a list with one item a rank
COLLECTIVE_TIMEOUT = timedelta(hours=1)  # ranks may be this far apart, e.g. while one decodes videos

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """What every rank needs to build the same engine."""

    model: ModelSection
    video: VideoSection
    optimizer: OptimizerSection
    deepspeed: DeepSpeedSection
    total_steps: int  # optimizer steps of the whole run
    seed: int
    threads: int = 1  # of torch on a CPU
    features: FeaturesSection | None = None  # with an absolute folder (features.located); None: no cache
    motion: MotionSection = field(default_factory=MotionSection)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """Where a rank runs and what it trains."""

    rank: int
    host: str
    device: str
    num_trained: int  # parameters
    layout: Layout


class TrainingWorker(Worker):
    """One rank: process group, policy, processor and engine.

    `start` must have run before anything else. Attributes for subclasses: `spec`, `engine`, `policy` (call it
    through `engine.run` only), `processor`, `rank`, `world_size`.
    """

    engine: TrainingEngine
    policy: Qwen2_5_VLForConditionalGeneration
    processor: Qwen2_5_VLProcessor

    def __init__(self, spec: TrainingSpec) -> None:
        super().__init__()
        self.spec = spec
        setup_actor_logging(f"learner-{self.rank}")
        self.metrics = LearnerMetrics(self.rank)
        torch.set_num_threads(spec.threads)
        join_process_group()

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def start(self) -> WorkerReport:
        """Load the policy and build the engine."""
        return self.build_engine(self.load_model())

    def load_model(self) -> Qwen2_5_VLForConditionalGeneration:
        """The policy on this rank's device, not yet in DeepSpeed's hands, and its processor."""
        spec = self.spec
        seed_everything(spec.seed)
        self.processor = load_processor(spec.model.path, spec.video, spec.motion)
        check_motion(spec.model.path, spec.motion)
        # Without overlays nothing would teach the motion merger.
        model = spec.model.model_copy(update={} if spec.motion.enabled else {"freeze_motion_projector": True})
        return load_policy(model, device="cuda" if torch.cuda.is_available() else "cpu")

    def build_engine(self, model: Qwen2_5_VLForConditionalGeneration) -> WorkerReport:
        """Hand the policy to DeepSpeed; from here on its weights may be partitioned over ranks."""
        spec = self.spec
        self.policy = model
        lora = spec.model.lora
        self.adapters = lora and Adapters.of(lora, base_fingerprint(model))
        self.engine = TrainingEngine(
            model, spec.optimizer, spec.deepspeed, dtype=spec.model.dtype, total_steps=spec.total_steps
        )
        seed_everything(spec.seed + self.rank)
        logger.info("rank %d of %d trains %s on %s", self.rank, self.world_size, spec.model.path, self.engine.device)
        return WorkerReport(
            rank=self.rank,
            host=socket.gethostname(),
            device=str(self.engine.device),
            num_trained=sum(int(np.prod(p.shape)) for p in self.engine.params if p.trained),
            layout=self.layout(),
        )

    def layout(self) -> Layout:
        """What a checkpoint of this worker must match."""
        params = tuple((p.name, p.shape, p.trained) for p in self.engine.params)
        return Layout(self.world_size, self.spec.deepspeed.zero_stage, self.spec.model.dtype, params, self.adapters)

    def record(self, steps: Sequence[StepStats], num_tokens: int, seconds: float) -> None:
        """Tell Prometheus and this rank's log of one call's optimizer steps.

        Args:
            num_tokens: that the language model ran over, padding too.
        """
        num_skipped = sum(step.skipped for step in steps)
        count(self.metrics.updates, len(steps))
        count(self.metrics.skipped, num_skipped)
        count(self.metrics.tokens, num_tokens)
        count(self.metrics.update_s, seconds)
        self.metrics.peak_memory.set(peak_memory())
        logger.info("%d updates, %d skipped, %d tokens in %.1f s", len(steps), num_skipped, num_tokens, seconds)

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def save(self, folder: str) -> None:
        """Write this rank's state into `folder` (of CheckpointStore.write).

        Raises:
            CheckpointError: disk full or read-only, with the path and the space left.
        """
        path = Path(folder)
        try:
            self.engine.save(path)
            torch.save(rng_state(), path / f"rng-{self.rank:05d}.pt")
            sync_tree(path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            raise write_error(path, error) from error

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def load(self, folder: str) -> None:
        """Restore weights, optimizer, counters and random generators from a checkpoint of equal layout."""
        path = Path(folder)
        self.engine.load(path)
        restore_rng(torch.load(path / f"rng-{self.rank:05d}.pt", weights_only=False))

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def export(self, folder: str) -> None:
        """Write the policy as a Hugging Face folder (rank 0 writes, all ranks take part)."""
        state = {name: t.clone() for bucket in self.engine.gathered_state() for name, t in bucket}
        if self.rank == 0:
            save_policy(self.policy, self.processor, Path(folder), state_dict=state)
        dist.barrier()


def join_process_group() -> None:
    """Join the group named by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT: NCCL on GPUs, gloo on CPUs."""
    import deepspeed  # not at the top: the driver imports this module for the class only
    from deepspeed.utils import logger as deepspeed_logger

    deepspeed_logger.setLevel(logging.ERROR)
    # DeepSpeed would compile a shared-memory all-reduce at this point; it serves inference only.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(
        dist_backend=backend, auto_mpi_discovery=False, timeout=COLLECTIVE_TIMEOUT, verbose=False
    )


def peak_memory() -> int:
    """Most bytes held so far: allocated on the GPU, or resident of the process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@dataclass(frozen=True, slots=True)
class RngState:
    """States of every random generator of one process."""

    python: object
    numpy: object
    torch_cpu: torch.Tensor
    torch_cuda: tuple[torch.Tensor, ...]


def rng_state() -> RngState:
    """Capture this process's random generators."""
    cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else ()
    return RngState(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)


def restore_rng(state: RngState) -> None:
    """Put back what `rng_state` captured."""
    random.setstate(state.python)  # type: ignore[arg-type]
    np.random.set_state(state.numpy)  # type: ignore[arg-type]
    torch.set_rng_state(state.torch_cpu)
    if state.torch_cuda:
        torch.cuda.set_rng_state_all(list(state.torch_cuda))
