"""The rewards as verl's `custom_reward_function`: path `pkg://rewards.adapters.verl`, name `compute_score`.

verl scores one completion a call, so a reward that compares the captions of a group sees groups of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from owlcap.types import Unscored
from rewards.adapters.shared import EXTRA_COLUMNS, make_sample, number, shared_suite


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    config: str,
    overrides: Sequence[str] = (),
    unscored_value: float | None = None,
    **_: object,
) -> dict[str, float]:
    """Score one caption against the reference `ground_truth`.

    Args:
        extra_info: `index` names the sample in errors; `questions` and `keypoints` go to the rewards that ask for them.
        config: the rewards' YAML; with `overrides` and `unscored_value` from verl's `reward_kwargs`.
        unscored_value: the score of a caption that cannot be scored. verl has no way to mask one, so without
            this value such a caption ends the run.

    Returns:
        `score` and `unscored` (1.0 or 0.0). verl wants the same keys from all calls, and an unscored caption has
        no parts and metrics, so these are left out.

    Raises:
        RewardError: the caption is unscored and `unscored_value` is not given, or a reward broke its contract.
    """
    info = extra_info or {}
    id = str(info.get("index", data_source))
    sample = make_sample(ground_truth, id, *(info.get(name) for name in EXTRA_COLUMNS))
    future = shared_suite(config, tuple(overrides)).submit(sample, [solution_str])
    (outcome,) = await asyncio.wrap_future(future)
    unscored = float(isinstance(outcome, Unscored))
    return {"score": number(outcome, unscored_value, f"verl sample {id}"), "unscored": unscored}
