"""The rewards as a reward function of ms-swift's GRPO, for a plug-in file named by `--external_plugins`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from rewards.adapters.shared import number, shared_suite


def orm_class(
    config: str, overrides: Sequence[str] = (), column: str = "reference", unscored_value: float | None = None
) -> type[Any]:
    """A subclass of ms-swift's AsyncORM, to be put into its `orms` under a name.

    Args:
        config: a rewards YAML or an RL configuration.
        column: of the data set that holds the references; `questions` and `keypoints` are used where it has them.
        unscored_value: of a caption that cannot be scored. ms-swift counts a missing reward as 0, so without this
            value such a caption ends the run with a RewardError.
    """
    from swift.rewards import AsyncORM  # pyright: ignore[reportMissingImports]

    class OwlcapReward(AsyncORM):
        async def __call__(self, completions: Sequence[object], **columns: Any) -> list[float]:
            futures = shared_suite(config, tuple(overrides)).submit_rows(column, columns, completions)
            groups = await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
            return [number(outcome, unscored_value, "ms-swift reward") for group in groups for outcome in group]

    return OwlcapReward
