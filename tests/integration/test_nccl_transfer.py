"""Weights through vLLM's weight-transfer API: real DeepSpeed ranks, a real vLLM engine, the real NCCL classes of both.

There are no GPUs here. A TCP store stands in for NCCL's broadcast, and `play_cuda` for the streams around it; all else,
on either side, is what runs on GPUs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch
from verl.single_controller.base.decorator import register

from owlcap.config import (
    AlgorithmSection,
    ClusterSection,
    DeepSpeedSection,
    ModelSection,
    OptimizerSection,
    RolloutSection,
    VideoSection,
)
from owlcap.errors import RolloutError
from owlcap.training.buckets import WeightDigest
from owlcap.training.group import make_worker_group
from owlcap.training.worker import ONE_TO_ALL, TrainingSpec
from owlcap.types import RolloutGroup, Sample, SamplingSettings
from rl.learner import LearnerWorker, LearningSpec
from rl.learner_client import LearnerClient
from rl.weight_sync import DirectWeights, load_weights
from rollout.pool import RolloutPool
from rollout.settings import GenerationRequest, RolloutEngineSettings
from rollout.transfer import EngineActors
from rollout.worker import RolloutWorker

pytestmark = pytest.mark.slow
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module

VIDEO = VideoSection(fps=6, min_frames=4, max_frames=12, min_pixels=784, max_pixels=3136)
ROLLOUT = RolloutSection(max_model_len=256, max_num_seqs=32, kv_cache_gib=0.0625, max_new_tokens=16)
CLUSTER = ClusterSection(learner_ranks=2, cpus_per_learner=0.5, cpus_per_rollout=0.5, sync_deadline_s=60.0).model_copy(
    update={"weight_transfer": "nccl"}  # which its checks refuse on a CPU
)


class StoreCommunicator:
    """Broadcasts through a TCP store what NCCL would send between GPUs."""

    def __init__(self, host: str, port: int, rank: int, world_size: int, device: object) -> None:
        from vllm.distributed.utils import StatelessProcessGroup

        self.group = StatelessProcessGroup.create(host, port, rank, world_size)

    def broadcast(self, tensor: torch.Tensor, src: int, stream: object = None) -> None:
        if self.group.rank == src:
            self.group.broadcast_obj(tensor.numpy().tobytes(), src)
        else:
            tensor.copy_(torch.frombuffer(bytearray(self.group.broadcast_obj(None, src)), dtype=torch.uint8))


class Stream:
    def synchronize(self) -> None: ...


def play_cuda() -> None:
    """Let this process's vLLM believe in one CUDA device."""
    from vllm.distributed.weight_transfer import nccl_common, packed_tensor

    torch.accelerator.synchronize = lambda *_: None
    torch.accelerator.current_device_index = lambda: 0
    torch.cuda.stream = lambda _: contextlib.nullcontext()  # type: ignore[assignment]
    packed_tensor._get_streams = lambda device, count: (Stream(),) * count  # type: ignore[assignment]
    nccl_common.stateless_init_process_group = StoreCommunicator  # type: ignore[assignment]


class Engine(RolloutWorker):
    def start(self) -> int:
        version = super().start()
        play_cuda()
        return version


class Rank(LearnerWorker):
    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def send_weights(self, engines: EngineActors, deadline_s: float) -> WeightDigest:
        play_cuda()
        return LearnerWorker.send_weights(self, engines, deadline_s)


class Learner(LearnerClient):
    def _launch(self) -> None:
        self._group = make_worker_group(Rank, (self._spec, self._learning), self._cluster)
        self._starting = self._group.start()


@pytest.fixture(scope="module")
def learner(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerClient]:
    """Two ZeRO-3 ranks with other weights than those that the engine starts with."""
    from transformers import Qwen2_5_VLConfig

    from owlcap.models.load import load_processor
    from owlcap.models.tiny import random_model

    other = tmp_path_factory.mktemp("other")
    random_model(Qwen2_5_VLConfig.from_pretrained(tiny_policy), seed=9).save_pretrained(other)
    load_processor(tiny_policy, VIDEO).save_pretrained(other)
    spec = TrainingSpec(
        model=ModelSection(path=str(other), dtype="fp32", gradient_checkpointing=False),
        video=VIDEO,
        optimizer=OptimizerSection(lr=1e-3),
        deepspeed=DeepSpeedSection(zero_stage=3),
        total_steps=10,
        seed=0,
    )
    learning = LearningSpec(AlgorithmSection(kl_beta=0.0), 1.0, 16, str(other))
    client = Learner(spec, learning, CLUSTER)
    yield client
    client.close()


@pytest.fixture(scope="module")
def pool(tiny_policy: Path, learner: LearnerClient) -> Iterator[RolloutPool]:
    settings = RolloutEngineSettings(
        str(tiny_policy), VIDEO, rollout=ROLLOUT, dtype="fp32", max_prompt_tokens=128, nccl_transfer=True
    )
    with RolloutPool(settings, CLUSTER, Engine) as engines:
        learner.wait_started()
        yield engines


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=4, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()


def completions(pool: RolloutPool, clip: Path) -> list[tuple[tuple[int, ...], tuple[float, ...], int]]:
    """Tokens, logprobs and policy version of a group sampled with a fixed seed."""
    sampling = SamplingSettings(num_completions=4, max_new_tokens=16, seed=3)
    (group,) = pool.generate([GenerationRequest(Sample("a", str(clip), "Describe the video.", "", ""), sampling)])
    assert isinstance(group, RolloutGroup)
    return [(one.token_ids, one.logprobs, one.policy_version) for one in group.completions]


def direct(learner: LearnerClient) -> DirectWeights:
    weights = learner.weights()
    assert isinstance(weights, DirectWeights)
    return weights


def test_sent_weights_are_those_that_shared_memory_brings_and_a_replaced_engine_gets_them_too(
    pool: RolloutPool, learner: LearnerClient, toy_clips: tuple[Path, ...]
) -> None:
    old = completions(pool, toy_clips[0])
    pool.sync(learner.buckets().refs, 1)
    by_memory = completions(pool, toy_clips[0])
    assert by_memory[0][1] != old[0][1]

    stats = load_weights(direct(learner), pool, 2)
    assert stats.num_bytes == learner.buckets().num_bytes
    sent = completions(pool, toy_clips[0])
    assert [one[:2] for one in sent] == [one[:2] for one in by_memory]
    assert {one[2] for one in sent} == {2}

    os.kill(ray.get(pool._slots[0].actor.place.remote()).pid, signal.SIGKILL)
    assert completions(pool, toy_clips[0]) == sent
    assert pool.num_restarts == 1
    load_weights(direct(learner), pool, 3)  # in a new group, since the engine is another process
    assert [one[:2] for one in completions(pool, toy_clips[0])] == [one[:2] for one in sent]


def test_weights_that_changed_on_their_way_are_not_used(pool: RolloutPool, learner: LearnerClient) -> None:
    weights = direct(learner)

    def damaged(engines: EngineActors) -> WeightDigest:
        sent = weights.send(engines)
        return replace(sent, checksum=sent.checksum ^ 1)

    with pytest.raises(RolloutError, match="weights changed on their way"):
        load_weights(replace(weights, send=damaged), pool, 7)
    with pytest.raises(RolloutError, match="half-loaded weights"):
        pool.versions()
    load_weights(weights, pool, 8)
    assert pool.versions() == (8,)
