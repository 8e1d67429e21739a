"""Advantages of scored groups, by any of verl's outcome-level estimators.

GRPO (verl's "grpo", the default) computes A = (r - mean) / (std + eps) over the scored rollouts of a
group, with the unbiased standard deviation (divisor n - 1), as the released OwlCap trainer (TRL 0.17)
does. verl's own eps is 1e-6; the released 1e-4 is passed, so that the two agree digit for digit.

What verl leaves to the caller is done here:
  - unscored rollouts are left out of the group's statistics and get no advantage at all (None);
  - a group with one scored rollout, or with equal rewards, says nothing about which caption is better:
    its advantages are 0 and it is counted (verl would give a group of one its raw reward). Only an estimator that
    compares a rollout with the whole step and not with its group ("reinforce_plus_plus") takes these too.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from owlcap.config import AlgorithmSection
from owlcap.errors import ConfigError, RewardError

EPSILON = 1e-4  # of the released trainer; verl's default is 1e-6
AVAILABLE_INPUTS = frozenset(
    {"token_level_rewards", "response_mask", "index", "epsilon", "norm_adv_by_std_in_grpo", "config", "kwargs"}
)
# These read further inputs from `**kwargs` or optional arguments, or fall back to something else without them.
NOT_OUTCOME_LEVEL = frozenset({"gdpo", "gae", "remax", "optimal_token_baseline", "tir_optimal_token_baseline"})
# GPG's paper scales by captions of informative groups, verl by rewards that are not 0: not the same if graded.
REFUSED = {"gpg": "is scaled by how many rewards are exactly 0, which says nothing of graded rewards"}


@dataclass(frozen=True, slots=True)
class Advantages:
    """One tuple a group, one value a rollout (None where it is unscored), and why groups taught nothing."""

    values: tuple[tuple[float | None, ...], ...]
    num_too_few: int  # groups with fewer than 2 scored rollouts
    num_no_variance: int  # groups whose scored rewards are all equal


def batch_advantages(
    totals: Sequence[Sequence[float | None]], lengths: Sequence[Sequence[int]], cfg: AlgorithmSection
) -> Advantages:
    """Advantages of a step's groups.

    Args:
        totals: reward of each rollout, one sequence a group; None is unscored.
        lengths: tokens of each completion, same shape; some estimators weigh by them.

    Raises:
        ConfigError: `cfg.advantage` is no estimator, or needs more than a reward a rollout.
        RewardError: a reward is not finite (a reward that cannot be computed must be unscored).
    """
    estimate = estimator(cfg.advantage)
    if not all(reward is None or math.isfinite(reward) for group in totals for reward in group):
        raise RewardError(
            "a reward is not finite",
            where="the rewards' totals of one step",
            allowed="a finite number, or Unscored with its reason",
            cure="return Unscored from the reward where it cannot be computed",
        )
    values: list[list[float | None]] = [[None if r is None else 0.0 for r in group] for group in totals]
    in_groups = "index" in inspect.signature(estimate).parameters
    num_too_few = sum(sum(reward is not None for reward in group) < 2 for group in totals)
    num_informative = sum(is_informative(group) for group in totals)
    rows = [  # (group, rollout) given to the estimator
        (g, i)
        for g, group in enumerate(totals)
        if is_informative(group) or not in_groups
        for i, reward in enumerate(group)
        if reward is not None
    ]
    if len(rows) > 1:
        rewards = [totals[g][i] or 0.0 for g, i in rows]
        counts = [lengths[g][i] for g, i in rows]
        for (g, i), advantage in zip(
            rows, _estimate(estimate, rewards, counts, [g for g, _ in rows], cfg), strict=True
        ):
            values[g][i] = advantage
    num_no_variance = len(totals) - num_too_few - num_informative
    return Advantages(tuple(tuple(group) for group in values), num_too_few, num_no_variance)


def is_informative(totals: Sequence[float | None]) -> bool:
    """Whether a group's rewards differ, so that it says which of its captions is better.

    DAPO's dynamic sampling keeps such groups alone (arXiv 2503.14476, section 3.2). None is unscored.
    """
    return len({reward for reward in totals if reward is not None}) > 1


def group_advantages(totals: Sequence[float | None], cfg: AlgorithmSection) -> tuple[float | None, ...]:
    """Advantages of one group by itself; see `batch_advantages`. Completion lengths are taken as equal."""
    return batch_advantages([totals], [[1] * len(totals)], cfg).values[0]


def estimator(name: str) -> Callable[..., Any]:
    """verl's advantage estimator of that name, if a reward a rollout is all it needs.

    Raises:
        ConfigError: no such name, one that needs a critic, a baseline rollout or token-level inputs, or a refused one.
    """
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    usable = {
        str(key): function for key, function in ADV_ESTIMATOR_REGISTRY.items() if _needs_rewards_only(key, function)
    }
    if name not in usable:
        needs_more = "needs more than one reward a rollout (a critic, a baseline or token values)"
        why = REFUSED.get(name, needs_more if name in ADV_ESTIMATOR_REGISTRY else "is unknown")
        raise ConfigError(
            f"advantage estimator {name!r} {why}",
            where="algorithm.advantage",
            allowed=", ".join(sorted(usable)),
            cure="set algorithm.advantage=grpo, or register your own with verl's register_adv_est",
        )
    return usable[name]


def _needs_rewards_only(name: str, function: Callable[..., Any]) -> bool:
    if name in NOT_OUTCOME_LEVEL or name in REFUSED:
        return False
    parameters = inspect.signature(function).parameters.values()
    return all(p.name in AVAILABLE_INPUTS or p.default is not p.empty for p in parameters)


def _estimate(
    function: Callable[..., Any],
    rewards: Sequence[float],
    counts: Sequence[int],
    index: Sequence[int],
    cfg: AlgorithmSection,
) -> list[float]:
    """Call a verl estimator on one reward a row and read back one advantage a row.

    The tensors have shape [rows, longest completion] because estimators may weigh by token counts; the
    reward sits on the last token, where an outcome reward belongs.
    """
    from verl.trainer.config import AlgoConfig

    lengths = torch.tensor(counts)
    mask_BT = (torch.arange(int(lengths.max()))[None, :] < lengths[:, None]).float()
    rewards_BT = torch.zeros_like(mask_BT)
    rewards_BT[torch.arange(len(rewards)), lengths - 1] = torch.tensor(rewards, dtype=torch.float32)
    inputs: dict[str, Any] = {
        "token_level_rewards": rewards_BT,
        "response_mask": mask_BT,
        "index": np.array(index),
        "epsilon": EPSILON,
        "norm_adv_by_std_in_grpo": cfg.normalize_by_std,
        "config": AlgoConfig(norm_adv_by_std_in_grpo=cfg.normalize_by_std),
    }
    wanted = inspect.signature(function).parameters
    advantages_BT, _ = function(**{name: value for name, value in inputs.items() if name in wanted})
    first_B = advantages_BT[:, 0]
    if not torch.allclose(advantages_BT, first_B[:, None] * mask_BT, atol=1e-6):
        raise ConfigError(
            f"advantage estimator {cfg.advantage!r} gives the tokens of one completion different advantages",
            where="algorithm.advantage",
            allowed="outcome-level estimators: one advantage a completion",
            cure="set algorithm.advantage=grpo",
        )
    return first_B.tolist()
