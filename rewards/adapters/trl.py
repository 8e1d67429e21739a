"""The rewards as reward functions of TRL's GRPOTrainer. None is unscored.

TRL leaves a completion out of the statistics when all its reward functions give None; beside another reward that
has a value, it counts a None as 0. So give all rewards as terms of one configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rewards.adapters.shared import shared_suite, totals

Totals = list[float | None]


def reward_function(config: str, overrides: Sequence[str] = (), column: str = "reference") -> Callable[..., Totals]:
    """A function for `GRPOTrainer(reward_funcs=[...])`.

    Args:
        config: a rewards YAML or an RL configuration.
        column: of the data set that holds the references; `questions` and `keypoints` are used where it has them.

    Raises:
        ConfigError: the configuration cannot be used; when called, the data set has no such column.
    """
    suite = shared_suite(config, overrides)

    def owlcap_reward(*, completions: Sequence[object], **columns: Any) -> Totals:
        futures = suite.submit_rows(column, columns, completions)
        return totals([future.result() for future in futures])

    return owlcap_reward


def async_reward_function(
    config: str, overrides: Sequence[str] = (), column: str = "reference"
) -> Callable[..., Awaitable[Totals]]:
    """As `reward_function`, awaited by TRL together with its other asynchronous reward functions."""
    suite = shared_suite(config, overrides)

    async def owlcap_reward(*, completions: Sequence[object], **columns: Any) -> Totals:
        futures = suite.submit_rows(column, columns, completions)
        return totals(await asyncio.gather(*(asyncio.wrap_future(future) for future in futures)))

    return owlcap_reward
