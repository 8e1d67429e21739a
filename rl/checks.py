"""What can be refused of a run's settings without data, model or cluster."""

from __future__ import annotations

from owlcap.config import RlRun
from rewards.suite import make_suite
from rl.advantages import estimator
from rl.losses import policy_loss_fn


def check_settings(cfg: RlRun) -> None:
    """Resolve every name that a run will need.

    Raises:
        ConfigError: an unknown advantage, loss or reward, or one with bad options.
    """
    estimator(cfg.algorithm.advantage)
    policy_loss_fn(cfg.algorithm.policy_loss)
    make_suite(cfg.rewards)
