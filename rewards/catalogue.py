"""The rewards that come with the project: importing this module registers them all."""

from __future__ import annotations

import math

import rewards.autodq
import rewards.hallucination
import rewards.keypoints
import rewards.length
import rewards.overlong
import rewards.qa_probe
import rewards.repetition  # noqa: F401
from owlcap.config import RewardsSection
from owlcap.registry import resolve
from rewards.cser import CserReward


def judge_calls(settings: RewardsSection, num_captions: int, num_references: int) -> int:
    """Requests that scoring so many captions takes at most, when none is tried again or answered from the cache.

    Each reward says what it takes, in `calls(settings)`; a reward without that asks no judge. The held-out judge's
    share of the clips is taken to be what the settings say; it differs a little from clip to clip.

    Raises:
        ConfigError: an unknown reward.
    """
    total = 0
    for term in settings.terms:
        calls = getattr(resolve("reward", term.name), "calls", None)
        if calls is not None:
            needed = calls(settings)
            total += needed.per_caption * num_captions + needed.per_reference * num_references
    held_out = settings.monitors.held_out_judge
    if held_out is not None:
        needed = CserReward.calls(settings.model_copy(update={"judge": held_out, "panel": ()}))
        share = settings.monitors.held_out_share
        total += math.ceil(share * (needed.per_caption * num_captions + needed.per_reference * num_references))
    return total
