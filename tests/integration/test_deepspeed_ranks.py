"""The training engine on real ranks: however the work is divided, the update is the same."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray import cloudpickle
from ray.exceptions import ObjectLostError

from owlcap.config import ClusterSection, DeepSpeedSection, LoraSection, ModelSection, OptimizerSection, VideoSection
from owlcap.errors import CheckpointError, PlacementError, TrainingError
from owlcap.training.checkpoint import Layout
from owlcap.training.engine import StepStats
from owlcap.training.group import LearnerLostError, WorkerGroup, gather, make_worker_group, stop_worker_group
from owlcap.training.worker import ONE_TO_ALL, TrainingSpec, TrainingWorker, register
from owlcap.types import Prompt, VisionInputs
from sft.collate import SftItem, caption_loss, collate

pytestmark = pytest.mark.slow
# Ranks cannot import test modules: the worker class below travels with its code.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

DEADLINE_S = 300.0  # only so that a fault fails the test instead of hanging it
CLUSTER = ClusterSection(cpus_per_learner=0.5)
# Adam with a large eps is a smooth function of the gradient, so that rounding stays rounding in the weights.
OPTIMIZER = OptimizerSection(lr=1e-2, eps=1e-2, warmup_ratio=0.0, max_grad_norm=0.5, weight_decay=0.1)


@dataclass(frozen=True)
class Trained:
    """What a rank saw in a few steps."""

    losses: list[float]  # summed over this rank's share
    stats: list[StepStats]
    weights: dict[str, np.ndarray]  # rank 0 only


class Probe(TrainingWorker):
    """Trains a fresh engine with any settings on the same eight samples, divided over the ranks."""

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def train(
        self,
        stage: int,
        dtype: str,
        num_steps: int,
        poison_step: int = -1,
        offload: bool = False,
        lora: LoraSection | None = None,
    ) -> Trained:
        self.make(stage, dtype, offload, lora)
        return self.steps(num_steps, poison_step)

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def make(self, stage: int, dtype: str, offload: bool = False, lora: LoraSection | None = None) -> Layout:
        section = self.spec.model.model_copy(update={"dtype": dtype, "lora": lora})
        params = offload and stage == 3
        deepspeed = DeepSpeedSection(zero_stage=stage, offload_optimizer=offload, offload_params=params)  # type: ignore[arg-type]
        self.spec = TrainingSpec(section, self.spec.video, OPTIMIZER, deepspeed, total_steps=8, seed=0)
        return self.build_engine(self.load_model()).layout

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def steps(self, num_steps: int, poison_step: int = -1) -> Trained:
        items = [item(self.policy.config, i) for i in range(8)]
        total = sum(len(x.caption_ids) for x in items)
        losses, stats = [], []
        self.engine.train()
        for step in range(num_steps):
            share = items[self.rank :: self.world_size]
            micro = [share[i : i + 2] for i in range(0, len(share), 2)]
            losses.append(0.0)
            for turn, part in enumerate(micro):
                batch = collate(part, self.policy.config, ())
                loss = self.engine.run(lambda model, batch=batch: caption_loss(model, batch))  # type: ignore[arg-type]
                losses[-1] += float(loss.detach())
                if step == poison_step and self.rank == self.world_size - 1:
                    loss = loss * float("inf")
                self.engine.backward(loss / total, last=turn == len(micro) - 1)
            stats.append(self.engine.step())
        return Trained(losses, stats, self.weights(1000))

    def weights(self, bucket_bytes: int) -> dict[str, np.ndarray]:
        buckets = list(self.engine.gathered_state(bucket_bytes))
        assert len(buckets) > 5
        return {name: tensor.float().numpy().copy() for bucket in buckets for name, tensor in bucket}

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def loaded_weights(self) -> dict[str, np.ndarray]:
        return {name: tensor.float().numpy() for name, tensor in self.load_model().state_dict().items()}

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def random_draw(self) -> tuple[float, float]:
        return float(torch.rand(())), float(np.random.rand())

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def save_on_a_full_disk(self, folder: str) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            TrainingWorker.save.__wrapped__(self, folder)  # type: ignore[attr-defined]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    @register(dispatch_mode=ONE_TO_ALL, blocking=False)
    def die(self) -> None:
        os._exit(1)


def item(config, seed: int) -> SftItem:
    """A sample with its own length, text and pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.standard_normal((8, 1176)).astype(np.float32)
    ids = (*rng.integers(10, 200, 3 + seed).tolist(), *[config.video_token_id] * 2, 30)
    return SftItem(
        Prompt(ids, VisionInputs(pixels, (2, 2, 2), 0.5)), tuple(rng.integers(10, 200, 4 + seed % 3).tolist())
    )


@pytest.fixture(scope="module")
def groups(ray_cluster: None, tiny_policy: Path) -> Iterator[tuple[WorkerGroup, WorkerGroup]]:
    """One rank, and two ranks."""
    model = ModelSection(path=str(tiny_policy), dtype="fp32", freeze_vision=True, freeze_projector=False)
    spec = TrainingSpec(model, VideoSection(), OPTIMIZER, DeepSpeedSection(), total_steps=8, seed=0)
    made = [make_worker_group(Probe, (spec,), CLUSTER.model_copy(update={"learner_ranks": ranks})) for ranks in (1, 2)]
    yield made[0], made[1]
    for group in made:
        stop_worker_group(group)


@pytest.fixture(scope="module")
def plain(groups: tuple[WorkerGroup, WorkerGroup]) -> Trained:
    """Two steps on one rank without ZeRO: what everything is compared with."""
    return gather(groups[0].train(0, "fp32", 2), DEADLINE_S, "training")[0]


@pytest.mark.parametrize(("stage", "offload"), [(0, False), (2, False), (2, True), (3, False), (3, True)])
def test_two_ranks_make_the_update_of_one_at_every_zero_stage_with_and_without_offload(
    groups: tuple[WorkerGroup, WorkerGroup], plain: Trained, stage: int, offload: bool
) -> None:
    ranks: list[Trained] = gather(groups[1].train(stage, "fp32", 2, -1, offload), DEADLINE_S, "training")
    losses = [sum(pair) for pair in zip(*(rank.losses for rank in ranks), strict=True)]
    assert losses == pytest.approx(plain.losses, rel=1e-5)
    assert losses[1] < losses[0]
    for mine, theirs in zip(ranks[0].stats, plain.stats, strict=True):
        assert mine.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
        assert mine.grad_norm > OPTIMIZER.max_grad_norm  # clipping was at work
    assert ranks[0].weights.keys() == plain.weights.keys()
    assert not ranks[1].weights
    for name, weight in plain.weights.items():
        np.testing.assert_allclose(ranks[0].weights[name], weight, atol=1e-5, err_msg=name)


def test_frozen_weights_stay_and_trained_ones_move(groups: tuple[WorkerGroup, WorkerGroup], plain: Trained) -> None:
    before = gather(groups[0].loaded_weights(), DEADLINE_S, "loading")[0]
    moved = {name for name, weight in plain.weights.items() if not np.array_equal(weight, before[name])}
    assert before.keys() == plain.weights.keys()
    assert not any(name.startswith("model.visual.blocks") for name in moved)
    assert "model.visual.merger.mlp.0.weight" in moved
    assert "lm_head.weight" in moved


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_lora_trains_the_same_at_every_zero_stage_and_resumes_exactly(
    groups: tuple[WorkerGroup, WorkerGroup], plain: Trained, stage: int, tmp_path: Path
) -> None:
    lora = LoraSection(rank=4)
    alone: Trained = gather(groups[0].train(0, "fp32", 2, lora=lora), DEADLINE_S, "training")[0]
    assert alone.weights.keys() == plain.weights.keys()
    before: list[Layout] = gather(groups[1].make(stage, "fp32", lora=lora), DEADLINE_S, "making")
    gather(groups[1].steps(1), DEADLINE_S, "training")
    gather(groups[1].save(str(tmp_path)), DEADLINE_S, "saving")
    straight: list[Trained] = gather(groups[1].steps(1), DEADLINE_S, "training")
    for name, weight in alone.weights.items():
        np.testing.assert_allclose(straight[0].weights[name], weight, atol=1e-5, err_msg=name)
    after: list[Layout] = gather(groups[1].make(stage, "fp32", lora=lora), DEADLINE_S, "making")
    assert len({layout.adapters for layout in before + after}) == 1  # named before the policy is partitioned
    gather(groups[1].load(str(tmp_path)), DEADLINE_S, "loading")
    resumed: list[Trained] = gather(groups[1].steps(1), DEADLINE_S, "training")
    for name, weight in straight[0].weights.items():
        np.testing.assert_array_equal(resumed[0].weights[name], weight, err_msg=name)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_follows_fp32(groups: tuple[WorkerGroup, WorkerGroup], plain: Trained, stage: int) -> None:
    ranks: list[Trained] = gather(groups[1].train(stage, "bf16", 2), DEADLINE_S, "training")
    losses = [sum(pair) for pair in zip(*(rank.losses for rank in ranks), strict=True)]
    assert losses == pytest.approx(plain.losses, rel=0.01)
    assert ranks[0].stats[0].grad_norm == pytest.approx(plain.stats[0].grad_norm, rel=0.03)


@pytest.mark.parametrize(
    ("stage", "dtype", "offload"),
    [
        (0, "fp32", False),
        (0, "bf16", False),
        (1, "bf16", False),
        (2, "fp32", False),
        (2, "bf16", True),
        (3, "bf16", True),
    ],
)
def test_a_loss_that_is_not_finite_on_one_rank_skips_the_step_on_all(
    groups: tuple[WorkerGroup, WorkerGroup], stage: int, dtype: str, offload: bool
) -> None:
    ranks: list[Trained] = gather(groups[1].train(stage, dtype, 3, 1, offload), DEADLINE_S, "training")
    for rank in ranks:
        assert [stats.skipped for stats in rank.stats] == [False, True, False]
        assert rank.stats[2].num_skipped == 1
    losses = [sum(pair) for pair in zip(*(rank.losses for rank in ranks), strict=True)]
    assert losses[2] == losses[1] < losses[0]  # the skipped step changed nothing
    assert all(np.isfinite(weight).all() for weight in ranks[0].weights.values())


def test_too_many_skipped_steps_stop_the_run(groups: tuple[WorkerGroup, WorkerGroup]) -> None:
    gather(groups[0].make(0, "fp32"), DEADLINE_S, "making an engine")
    for _ in range(5):
        gather(groups[0].steps(1, 0), DEADLINE_S, "training")
    with pytest.raises(TrainingError, match="6 optimizer steps in a row"):
        gather(groups[0].steps(1, 0), DEADLINE_S, "training")


@pytest.mark.parametrize(("stage", "dtype"), [(0, "fp32"), (2, "bf16"), (3, "fp32")])
def test_a_restored_run_goes_on_bit_for_bit(
    groups: tuple[WorkerGroup, WorkerGroup], tmp_path: Path, stage: int, dtype: str
) -> None:
    group = groups[1]
    gather(group.train(stage, dtype, 2), DEADLINE_S, "training")
    gather(group.save(str(tmp_path)), DEADLINE_S, "saving")
    draws = gather(group.random_draw(), DEADLINE_S, "drawing")
    whole: list[Trained] = gather(group.steps(2), DEADLINE_S, "training")
    gather(group.make(stage, dtype), DEADLINE_S, "making an engine")
    gather(group.load(str(tmp_path)), DEADLINE_S, "loading")
    assert gather(group.random_draw(), DEADLINE_S, "drawing") == draws
    assert draws[0] != draws[1]  # ranks have generators of their own
    resumed: list[Trained] = gather(group.steps(2), DEADLINE_S, "training")
    assert [rank.losses for rank in resumed] == [rank.losses for rank in whole]
    assert [rank.stats for rank in resumed] == [rank.stats for rank in whole]
    assert resumed[0].stats[-1].step == 4
    for name, weight in whole[0].weights.items():
        np.testing.assert_array_equal(resumed[0].weights[name], weight, err_msg=name)


def test_a_full_disk_is_a_checkpoint_error(groups: tuple[WorkerGroup, WorkerGroup], tmp_path: Path) -> None:
    gather(groups[0].make(0, "fp32"), DEADLINE_S, "making an engine")
    with pytest.raises(CheckpointError, match="GiB free"):
        gather(groups[0].save_on_a_full_disk(str(tmp_path)), DEADLINE_S, "saving")


def test_ranks_that_cannot_be_placed_are_an_error_with_what_there_is(ray_cluster: None) -> None:
    too_many = CLUSTER.model_copy(update={"learner_ranks": 3, "cpus_per_learner": 4.0})
    with pytest.raises(PlacementError, match="wanted 3 ranks of 4 CPU each") as error:
        make_worker_group(Probe, (), too_many)
    assert "of 8 CPU" in str(error.value)


def test_placement_has_a_deadline(groups: tuple[WorkerGroup, WorkerGroup]) -> None:
    taken = CLUSTER.model_copy(update={"learner_ranks": 2, "cpus_per_learner": 3.5})  # 1.5 of 8 are in use
    with pytest.raises(PlacementError, match=r"not placed within 0\.5 s"):
        make_worker_group(Probe, (), taken, deadline_s=0.5)


def test_a_rank_that_dies_is_an_error_and_not_a_wait(ray_cluster: None, tiny_policy: Path) -> None:
    model = ModelSection(path=str(tiny_policy), dtype="fp32")
    spec = TrainingSpec(model, VideoSection(), OPTIMIZER, DeepSpeedSection(), total_steps=8, seed=0)
    group = make_worker_group(Probe, (spec,), CLUSTER)
    with pytest.raises(TrainingError, match=r"learner rank \d died while dying"):
        gather(group.die(), DEADLINE_S, "dying")
    stop_worker_group(group)


class DiesAtStart(TrainingWorker):
    """Its second rank never joins the others, which wait for it."""

    def __init__(self, spec: TrainingSpec) -> None:
        if os.environ["RANK"] == "1":
            os._exit(1)
        super().__init__(spec)


def test_ranks_do_not_wait_for_one_that_died_at_its_start(ray_cluster: None, tiny_policy: Path) -> None:
    model = ModelSection(path=str(tiny_policy), dtype="fp32")
    spec = TrainingSpec(model, VideoSection(), OPTIMIZER, DeepSpeedSection(), total_steps=8, seed=0)
    group = make_worker_group(DiesAtStart, (spec,), CLUSTER.model_copy(update={"learner_ranks": 2}))
    with pytest.raises(LearnerLostError, match="learner rank 1 died while loading"):
        gather(group.start(), DEADLINE_S, "loading")
    stop_worker_group(group)


@ray.remote
def fetch_prompts() -> None:
    raise ObjectLostError("ab" * 14, None, "")  # type: ignore[arg-type]  # what ray.get says in a rank


def test_inputs_that_are_lost_with_a_node_are_a_lost_learner(ray_cluster: None) -> None:
    with pytest.raises(LearnerLostError, match="learner rank 0 lost its inputs while updating"):
        gather([fetch_prompts.remote()], DEADLINE_S, "updating")
