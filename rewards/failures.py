"""A judge's failure becomes an Unscored: of its own caption, never of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from owlcap.errors import JudgeError, one_line
from owlcap.types import Unscored

T = TypeVar("T")


async def score_each(reward: str, captions: Sequence[str], score: Callable[[str], Awaitable[T]]) -> list[T | Unscored]:
    """Outcomes of all captions, scored at the same time; a JudgeError leaves its caption unscored."""

    async def outcome(caption: str) -> T | Unscored:
        try:
            return await score(caption)
        except JudgeError as error:
            return Unscored(reward, one_line(error))

    return list(await asyncio.gather(*(outcome(caption) for caption in captions)))
