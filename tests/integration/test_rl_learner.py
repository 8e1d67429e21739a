"""The learner on real DeepSpeed ranks: the same update however a step is cut, shared or sharded.

AdamW's eps is 1 here, so that an update is smooth in the gradient (with 1e-8 the first update is its sign).
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import ray

from owlcap.config import (
    AlgorithmSection,
    ClusterSection,
    DeepSpeedSection,
    FeaturesSection,
    ModelSection,
    OptimizerSection,
    RolloutCorrectionSection,
    VideoSection,
)
from owlcap.training.checkpoint import CheckpointMeta, CheckpointStore, DataCursor
from owlcap.training.worker import TrainingSpec
from owlcap.types import LearnerGroup, Prompt, Sample
from rl.learner import LearningSpec
from rl.learner_client import LearnerClient
from rl.stats import LearnerStats

pytestmark = pytest.mark.slow

VIDEO = VideoSection(fps=4, min_frames=4, max_frames=4, min_pixels=3136, max_pixels=3136, total_pixels=4 * 3136)
LR = 0.1


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def prompts(tiny_policy: Path, toy_clips: tuple[Path, ...]) -> list[Prompt]:
    from owlcap.data.prompts import encode_prompt
    from owlcap.data.video import decode
    from owlcap.models.load import load_processor

    processor = load_processor(tiny_policy, VIDEO)
    samples = [Sample(clip.stem, str(clip), "Describe the video.", "-", "-") for clip in toy_clips]
    return [encode_prompt(processor, decode(sample.video, VIDEO), sample, 200) for sample in samples]


@pytest.fixture(scope="module")
def groups(prompts: list[Prompt]) -> list[LearnerGroup]:
    """Four groups of three random completions, unequal in length; rollout logprobs of a made-up sampler."""
    draw = random.Random(5)
    groups = []
    for prompt in prompts:
        lengths = [draw.randint(2, 12) for _ in range(3)]
        groups.append(
            LearnerGroup(
                prompt=prompt,
                completions=tuple(tuple(draw.randrange(20, 200) for _ in range(n)) for n in lengths),
                rollout_logprobs=tuple(tuple(-5 - draw.random() for _ in range(n)) for n in lengths),
                advantages=(1.0, -0.5, draw.uniform(-1, 1)),
                rewards=(2.0, 1.0, 1.25),
            )
        )
    return groups


@dataclass(frozen=True)
class Outcome:
    """Figures of the updates, and the weights after them."""

    stats: list[LearnerStats]
    weights: dict[str, np.ndarray]


@contextmanager
def learner(
    model: Path,
    *,
    ranks: int = 1,
    zero_stage: int = 0,
    freeze_projector: bool = True,
    algorithm: AlgorithmSection | None = None,
    features: Path | None = None,
) -> Iterator[LearnerClient]:
    spec = TrainingSpec(
        model=ModelSection(
            path=str(model), dtype="fp32", freeze_projector=freeze_projector, gradient_checkpointing=False
        ),
        video=VIDEO,
        optimizer=OptimizerSection(lr=LR, eps=1.0, schedule="constant", warmup_ratio=0.0),
        deepspeed=DeepSpeedSection(zero_stage=zero_stage),  # type: ignore[arg-type]
        total_steps=10,
        seed=0,
        features=FeaturesSection(folder=str(features)) if features else None,
    )
    learning = LearningSpec(
        algorithm=algorithm or AlgorithmSection(), temperature=1.0, max_new_tokens=12, reference_model=str(model)
    )
    client = LearnerClient(spec, learning, ClusterSection(learner_ranks=ranks, cpus_per_learner=0.5))
    try:
        client.wait_started()
        yield client
    finally:
        client.close()


def outcome(client: LearnerClient, groups: list[LearnerGroup], num_updates: int = 2) -> Outcome:
    tokens = [len(group.prompt.token_ids) for group in groups]
    stats = [client.update(groups, tokens) for _ in range(num_updates)]
    buckets = ray.get(list(client.weights().refs))
    return Outcome(stats, {name: array.copy() for bucket in buckets for name, array in bucket.weights})


def outcomes(client: LearnerClient, groups: list[LearnerGroup], folder: Path) -> tuple[Outcome, Outcome]:
    """Two updates from all groups; and, from the same start again, two from the first group alone."""
    store = CheckpointStore(folder, keep=1)
    start = store.write(CheckpointMeta(0, DataCursor(), client.layout), client.save)
    everything = outcome(client, groups)
    client.load(start)
    return everything, outcome(client, groups[:1])


@pytest.fixture(scope="module")
def one_rank_both(
    tiny_policy: Path, groups: list[LearnerGroup], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Outcome, Outcome]:
    with learner(tiny_policy) as client:
        return outcomes(client, groups, tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def one_rank(one_rank_both: tuple[Outcome, Outcome]) -> Outcome:
    return one_rank_both[0]


def assert_same(a: Outcome, b: Outcome) -> None:
    for left, right in zip(a.stats, b.stats, strict=True):
        for name in ("loss", "policy_loss", "kl", "entropy", "mismatch_kl", "mismatch_max", "grad_norm"):
            assert getattr(left, name) == pytest.approx(getattr(right, name), rel=1e-5, abs=1e-6), name
        assert (left.num_sequences, left.num_tokens) == (right.num_sequences, right.num_tokens)
    assert a.weights.keys() == b.weights.keys()
    for name, weight in a.weights.items():
        np.testing.assert_allclose(weight, b.weights[name], atol=1e-6, err_msg=name)


def test_one_rank_moves_the_language_model_only(one_rank: Outcome, tiny_policy: Path) -> None:
    from safetensors.numpy import load_file

    before = load_file(tiny_policy / "model.safetensors")
    after = {name: weight for name, weight in one_rank.weights.items() if name in before}
    moved = {name for name, weight in after.items() if not np.array_equal(weight, before[name])}
    assert moved
    assert not {name for name in moved if "visual" in name}
    assert one_rank.stats[0].kl == pytest.approx(0.0, abs=1e-9)  # policy and reference are one model at first
    assert one_rank.stats[1].kl > 1e-9
    assert one_rank.stats[0].num_sequences == 12


def test_mismatch_is_that_of_the_made_up_sampler(
    one_rank: Outcome, groups: list[LearnerGroup], tiny_policy: Path
) -> None:
    import torch

    from owlcap.models.load import load_policy
    from owlcap.models.logprobs import completion_logprobs
    from owlcap.models.packing import pad_group

    policy = load_policy(ModelSection(path=str(tiny_policy), dtype="fp32", gradient_checkpointing=False))
    ratios, largest = [], 0.0
    with torch.no_grad():
        for group in groups:
            ours = completion_logprobs(policy, pad_group(group.prompt, group.completions, policy.config))
            sampler = torch.tensor([x for row in group.rollout_logprobs for x in row])
            ratios.append((ours - sampler).exp() - (ours - sampler) - 1)
            largest = max(largest, float((ours - sampler).abs().max()))
    assert one_rank.stats[0].mismatch_kl == pytest.approx(float(torch.cat(ratios).mean()), rel=1e-4)
    assert one_rank.stats[0].mismatch_max == pytest.approx(largest, rel=1e-4)


def test_small_micro_batches_make_the_same_update(
    one_rank: Outcome, groups: list[LearnerGroup], tiny_policy: Path
) -> None:
    # 60 tokens: less than one group has, so that groups are cut by completions too.
    cut = AlgorithmSection(tokens_per_micro_batch=60)
    with learner(tiny_policy, algorithm=cut) as client:
        assert_same(outcome(client, groups), one_rank)


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_two_ranks_make_the_same_update_at_every_zero_stage(
    one_rank_both: tuple[Outcome, Outcome],
    groups: list[LearnerGroup],
    tiny_policy: Path,
    tmp_path: Path,
    zero_stage: int,
) -> None:
    with learner(tiny_policy, ranks=2, zero_stage=zero_stage) as client:
        everything, fewer_groups_than_ranks = outcomes(client, groups, tmp_path)
    assert_same(everything, one_rank_both[0])
    assert_same(fewer_groups_than_ranks, one_rank_both[1])


def test_a_learner_that_rested_between_two_updates_makes_the_same_ones(
    one_rank: Outcome, groups: list[LearnerGroup], tiny_policy: Path
) -> None:
    with learner(tiny_policy, zero_stage=2) as client:
        first = outcome(client, groups, num_updates=1)
        client.rest()
        client.wake()
        second = outcome(client, groups, num_updates=1)
    assert_same(Outcome(first.stats + second.stats, second.weights), one_rank)


def test_vision_features_are_computed_once_and_change_no_bit(
    one_rank: Outcome, groups: list[LearnerGroup], tiny_policy: Path, tmp_path: Path
) -> None:
    with learner(tiny_policy, features=tmp_path) as client:
        result = outcome(client, groups)
    assert [(stats.feature_hits, stats.feature_misses) for stats in result.stats] == [(0, 4), (4, 0)]
    assert [(stats.feature_hits, stats.feature_misses) for stats in one_rank.stats] == [(0, 4), (0, 4)]
    assert result.stats[1].feature_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    for name, weight in one_rank.weights.items():
        np.testing.assert_array_equal(result.weights[name], weight, err_msg=name)
    # Two other ranks find them, and one rank runs the tower for a clip that is gone while the other misses none.
    next(tmp_path.iterdir()).unlink()
    with learner(tiny_policy, ranks=2, zero_stage=3, features=tmp_path) as client:
        later = outcome(client, groups)
    assert [(stats.feature_hits, stats.feature_misses) for stats in later.stats] == [(3, 1), (4, 0)]
    assert_same(later, one_rank)


def test_a_trained_projector_gets_gradients_and_its_reference_keeps_its_own(
    one_rank: Outcome, groups: list[LearnerGroup], tiny_policy: Path
) -> None:
    with learner(tiny_policy, freeze_projector=False) as client:
        result = outcome(client, groups)
    assert result.stats[0].loss == pytest.approx(one_rank.stats[0].loss, abs=1e-6)
    moved = {n for n, w in result.weights.items() if not np.array_equal(w, one_rank.weights[n])}
    assert any("visual.merger" in name for name in moved)
    assert not any("visual.blocks" in name for name in moved)


def test_several_passes_and_mini_batches_without_kl(groups: list[LearnerGroup], tiny_policy: Path) -> None:
    several = AlgorithmSection(kl_beta=0.0, num_epochs=2, num_minibatches=2)
    with learner(tiny_policy, algorithm=several) as client:
        (stats,) = outcome(client, groups, num_updates=1).stats
    assert stats.num_updates == 4
    assert stats.num_sequences == 12
    assert stats.kl == 0.0
    # A first update's policy loss is minus the mean advantage; later passes are better than that.
    assert stats.policy_loss < -np.mean([advantage for group in groups for advantage in group.advantages])


def test_weights_outlive_the_ranks_that_made_them(tiny_policy: Path) -> None:
    with learner(tiny_policy) as client:
        refs = client.weights().refs
        client.close()
        buckets = ray.get(list(refs))
    assert sum(len(bucket.weights) for bucket in buckets) > 0


def logprobs_of(model: Path, group: LearnerGroup) -> list[np.ndarray]:
    """Of a group's completions by the model at its start, without a learner."""
    import torch

    from owlcap.models.load import load_policy
    from owlcap.models.logprobs import completion_logprobs
    from owlcap.models.packing import pad_group

    policy = load_policy(ModelSection(path=str(model), dtype="fp32", gradient_checkpointing=False))
    with torch.no_grad():
        found = completion_logprobs(policy, pad_group(group.prompt, group.completions, policy.config)).numpy()
    return np.split(found, np.cumsum([len(ids) for ids in group.completions])[:-1])


def test_kl_in_the_reward_equals_advantages_worked_out_by_hand(groups: list[LearnerGroup], tiny_policy: Path) -> None:
    group, beta = groups[0], 0.3
    kls = [
        float(np.sum(np.array(sampler) - reference))
        for sampler, reference in zip(group.rollout_logprobs, logprobs_of(tiny_policy, group), strict=True)
    ]
    rewards = [reward - beta * kl for reward, kl in zip(group.rewards, kls, strict=True)]
    spread = statistics.stdev(rewards) + 1e-4
    by_hand = replace(group, advantages=tuple((r - statistics.fmean(rewards)) / spread for r in rewards))
    in_reward = AlgorithmSection(kl_in="reward", kl_estimator="k1", kl_beta=beta)
    found = []
    for ranks in (1, 2):  # one group on two ranks: its completions are cut over them
        with learner(tiny_policy, ranks=ranks, algorithm=in_reward) as client:
            found.append(outcome(client, [group], num_updates=1))
    assert_same(found[0], found[1])
    with learner(tiny_policy, algorithm=AlgorithmSection(kl_beta=0.0)) as client:
        expected = outcome(client, [by_hand], num_updates=1)
    assert found[0].stats[0].policy_loss == pytest.approx(expected.stats[0].policy_loss, abs=1e-5)
    for name, weight in expected.weights.items():
        np.testing.assert_allclose(found[0].weights[name], weight, atol=1e-5, err_msg=name)


def test_rollout_correction_weighs_each_token_by_how_stale_it_is(groups: list[LearnerGroup], tiny_policy: Path) -> None:
    group, most = groups[0], 1.5
    weights = [
        np.minimum(np.exp(learned - np.array(sampler)), most)
        for sampler, learned in zip(group.rollout_logprobs, logprobs_of(tiny_policy, group), strict=True)
    ]
    tokens = np.concatenate(weights)
    assert 0 < np.mean(tokens >= most) < 1
    correction = RolloutCorrectionSection(importance="token", importance_threshold=most)
    cfg = AlgorithmSection(kl_beta=0.0, rollout_correction=correction)
    with learner(tiny_policy, ranks=2, algorithm=cfg) as client:
        (stats,) = outcome(client, [group], num_updates=1).stats
    loss = -np.mean([a * w.mean() for a, w in zip(group.advantages, weights, strict=True)])
    assert stats.policy_loss == pytest.approx(loss, rel=1e-4, abs=1e-5)
    assert stats.correction_weight == pytest.approx(tokens.mean(), rel=1e-4)
    assert stats.truncated_share == pytest.approx(np.mean(tokens >= most))
    assert stats.rejected_share == 0.0
