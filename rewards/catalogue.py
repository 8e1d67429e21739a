"""The rewards that come with the project: importing this module registers them all."""

from __future__ import annotations

import rewards.autodq
import rewards.cser
import rewards.hallucination
import rewards.keypoints
import rewards.length
import rewards.overlong
import rewards.qa_probe
import rewards.repetition  # noqa: F401
from owlcap.config import RewardsSection
from owlcap.registry import resolve


def judge_calls(settings: RewardsSection, num_captions: int, num_references: int) -> int:
    """Requests that scoring so many captions takes at most, when none is tried again or answered from the cache.

    Each reward says what it takes, in `calls(settings)`; a reward without that asks no judge.

    Raises:
        ConfigError: an unknown reward.
    """
    total = 0
    for term in settings.terms:
        calls = getattr(resolve("reward", term.name), "calls", None)
        if calls is not None:
            needed = calls(settings)
            total += needed.per_caption * num_captions + needed.per_reference * num_references
    return total
