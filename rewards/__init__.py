"""What a caption is worth: CSER by a judge, other rewards, their weighted sum, and the Ray service that scores groups.

base.py       what a reward and a judge are          suite.py       several rewards as one, and their failures
catalogue.py  the rewards that come with owlcap      functions.py   a plain function as a reward
chat.py       questions to a judge's model           judges.py      the judges of a run
cser.py       the arithmetic of labelled units       staged.py, joint.py, lexical.py   who labels them
service.py    reward actors: `RewardPool.submit`     prompts/       what judges are asked

    from rewards import reward

    @reward("brief")
    def brief(caption, sample, per_word=0.01):
        return -per_word * len(caption.split())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from owlcap.registry import register

__all__ = ["reward"]

T = TypeVar("T")


def reward(name: str) -> Callable[[T], T]:
    """Decorator that makes a function or a reward class known as `name` in `rewards.terms`; see docs/rewards.md.

    Raises:
        ConfigError: another reward has this name.
    """
    return register("reward", name)
