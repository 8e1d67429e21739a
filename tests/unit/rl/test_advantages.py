"""Advantages against hand-worked numbers, and against the released formula written a second time."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from owlcap.config import AlgorithmSection
from owlcap.errors import ConfigError, RewardError
from rl.advantages import batch_advantages, estimator, group_advantages, is_informative

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


def test_passk_gives_the_best_its_lead_over_the_second() -> None:
    # 1, 2, 6: lead 4, unbiased variance (4 + 1 + 9) / 2 = 7
    cfg = AlgorithmSection(advantage="grpo_passk")
    assert group_advantages([1.0, 6.0, 2.0], cfg) == pytest.approx((0, 4 / (math.sqrt(7) + 1e-4), 0), abs=1e-6)
    without_std = cfg.model_copy(update={"normalize_by_std": False})
    assert group_advantages([1.0, 6.0, 2.0], without_std) == pytest.approx((0, 4, 0))


def whitened_over_tokens(rewards: list[float], lengths: list[int]) -> list[float]:
    """Every token carries its caption's reward; mean and unbiased deviation over all tokens of the step."""
    tokens = np.repeat(rewards, lengths)
    return list((np.array(rewards) - tokens.mean()) / tokens.std(ddof=1))


def test_reinforce_plus_plus_compares_with_all_tokens_of_the_step() -> None:
    found = batch_advantages(
        [[1.0, 4.0], [2.0, 2.0]], [[3, 5], [2, 7]], AlgorithmSection(advantage="reinforce_plus_plus")
    )
    expected = whitened_over_tokens([1, 4, 2, 2], [3, 5, 2, 7])
    assert [value for group in found.values for value in group] == pytest.approx(expected, abs=1e-5)


def test_reinforce_plus_plus_with_a_baseline_centres_each_group_first() -> None:
    cfg = AlgorithmSection(advantage="reinforce_plus_plus_baseline")
    found = batch_advantages([[1.0, 4.0], [2.0, 2.5, 6.0], [5.0, 5.0]], [[3, 5], [2, 7, 4], [6, 6]], cfg)
    expected = whitened_over_tokens([-1.5, 1.5, -1.5, -1, 2.5], [3, 5, 2, 7, 4])  # groups 1 and 2 alone teach
    assert [value for group in found.values[:2] for value in group] == pytest.approx(expected, abs=1e-5)
    assert found.values[2] == (0.0, 0.0)


def test_gpg_is_refused_since_its_scale_counts_rewards_of_zero() -> None:
    with pytest.raises(ConfigError, match="graded rewards") as caught:
        estimator("gpg")
    assert "gpg" not in str(caught.value).split("allowed")[-1]


@pytest.mark.parametrize(
    ("totals", "expected"),
    [([1.0, 2.0], True), ([1.0, None, 2.0], True), ([1.0, 1.0], False), ([1.0, None], False), ([None, None], False)],
)
def test_a_group_is_informative_if_its_scored_rewards_differ(totals: list[float | None], expected: bool) -> None:
    assert is_informative(totals) is expected


@pytest.mark.parametrize(
    "name", ["grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "grpo_passk", "reinforce_plus_plus"]
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
