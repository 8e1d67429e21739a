"""Advantages against hand-worked numbers, and against the released formula written a second time."""

from __future__ import annotations

import math
import random

import pytest

from owlcap.config import AlgorithmSection
from owlcap.errors import ConfigError, RewardError
from rl.advantages import batch_advantages, estimator, group_advantages

GRPO = AlgorithmSection()


def released(rewards: list[float]) -> list[float]:
    """TRL 0.17's GRPO: unbiased standard deviation, 1e-4 added to it."""
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (std + 1e-4) for r in rewards]


def test_two_rollouts_by_hand() -> None:
    # mean 1, unbiased variance ((-1)^2 + 1^2) / 1 = 2
    expected = 1 / (math.sqrt(2) + 1e-4)
    assert group_advantages([0.0, 2.0], GRPO) == pytest.approx((-expected, expected), abs=1e-6)


def test_four_rollouts_by_hand() -> None:
    # 1, 2, 3, 6: mean 3, deviations -2, -1, 0, 3, unbiased variance 14 / 3
    std = math.sqrt(14 / 3) + 1e-4
    assert group_advantages([1.0, 2.0, 3.0, 6.0], GRPO) == pytest.approx((-2 / std, -1 / std, 0.0, 3 / std), abs=1e-6)


def test_random_groups_equal_the_released_formula() -> None:
    draw = random.Random(7)
    groups = [[round(draw.uniform(0.2, 3.0), 2) for _ in range(8)] for _ in range(20)]
    lengths = [[draw.randint(1, 60) for _ in group] for group in groups]
    ours = batch_advantages(groups, lengths, GRPO).values
    for group, advantages in zip(groups, ours, strict=True):
        assert advantages == pytest.approx(released(group), abs=2e-5)


def test_unscored_rollouts_leave_the_statistics() -> None:
    with_gap = group_advantages([1.0, None, 2.0, None, 6.0], GRPO)
    assert with_gap[1] is None
    assert with_gap[3] is None
    assert [with_gap[0], with_gap[2], with_gap[4]] == list(group_advantages([1.0, 2.0, 6.0], GRPO))


def test_groups_that_teach_nothing_are_zero_and_counted() -> None:
    groups = [[1.0, 2.0], [None, 1.5], [None, None], [0.7, 0.7], [0.7, 0.7, None]]
    result = batch_advantages(groups, [[3] * len(group) for group in groups], GRPO)
    assert result.values[1:] == ((None, 0.0), (None, None), (0.0, 0.0), (0.0, 0.0, None))
    assert result.num_too_few == 2
    assert result.num_no_variance == 2
    assert result.values[0][1] == pytest.approx(0.5 / (math.sqrt(0.5) + 1e-4), abs=1e-6)


def test_without_the_standard_deviation_it_is_the_centred_reward() -> None:
    assert group_advantages([1.0, 2.0, 6.0], AlgorithmSection(normalize_by_std=False)) == pytest.approx((-2, -1, 3))


def test_rloo_compares_with_the_mean_of_the_others() -> None:
    # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2
    assert group_advantages([1.0, 2.0, 6.0], AlgorithmSection(advantage="rloo")) == pytest.approx((-3, -1.5, 4.5))


def test_opo_weighs_its_baseline_by_completion_length() -> None:
    # baseline (10 * 1 + 30 * 2) / 40 = 1.75
    result = batch_advantages([[1.0, 2.0]], [[10, 30]], AlgorithmSection(advantage="opo"))
    assert result.values[0] == pytest.approx((-0.75, 0.25))


@pytest.mark.parametrize(
    "name", ["grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "gpg", "grpo_passk", "reinforce_plus_plus"]
)
def test_every_outcome_estimator_prefers_the_better_caption(name: str) -> None:
    low, high = group_advantages([0.5, 1.5], AlgorithmSection(advantage=name))
    assert low is not None
    assert high is not None
    assert low < high


@pytest.mark.parametrize("name", ["gae", "remax", "gdpo", "optimal_token_baseline"])
def test_estimators_that_need_more_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="needs more than one reward"):
        estimator(name)


def test_an_unknown_estimator_is_named_with_those_allowed() -> None:
    with pytest.raises(ConfigError, match="'grpoo' is unknown") as caught:
        group_advantages([1.0, 2.0], AlgorithmSection(advantage="grpoo"))
    assert "grpo_vectorized" in str(caught.value)


def test_a_reward_that_is_not_finite_stops() -> None:
    with pytest.raises(RewardError, match="not finite"):
        group_advantages([1.0, float("nan")], GRPO)
