"""Rate limits of a judge: requests and tokens a minute, over every process that asks it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Protocol

from owlcap.config import JudgeSection

MINUTE_S = 60.0
BURST_S = 5.0  # after a pause, so many seconds' worth is let through at once


class RateLimiter(Protocol):
    """Lets requests through at a judge's rate."""

    async def admit(self, judge: str, tokens: float) -> None:
        """Return when one request of about `tokens` tokens may be sent to the judge of this name."""
        ...

    async def settle(self, judge: str, extra_tokens: float) -> None:
        """Tell that an admitted request took more tokens than said (or fewer, as a negative number)."""
        ...


class LocalLimiter:
    """Limits of the judges that one process asks: first come, first served.

    A request goes when all before it are paid off at the judge's rate, so that no minute sees more than the limit
    by more than BURST_S seconds' worth and one request; one larger than a whole minute's tokens is let through too,
    and what comes after it waits the longer.
    """

    def __init__(self, judges: Mapping[str, JudgeSection]) -> None:
        self._paces = {
            name: (_Pace(judge.requests_per_minute), _Pace(judge.tokens_per_minute)) for name, judge in judges.items()
        }

    async def admit(self, judge: str, tokens: float) -> None:
        """See RateLimiter. A request whose wait is cancelled gives back what it took."""
        requests, tokens_pace = self._paces[judge]
        now = asyncio.get_running_loop().time()
        turn = max(requests.reserve(1.0, now), tokens_pace.reserve(tokens, now))
        try:
            await asyncio.sleep(turn - now)
        except asyncio.CancelledError:
            requests.add(-1.0)
            tokens_pace.add(-tokens)
            raise

    async def settle(self, judge: str, extra_tokens: float) -> None:
        """See RateLimiter."""
        self._paces[judge][1].add(extra_tokens)


class _Pace:
    """When all that was let through so far is paid off at so much a minute; None: at once."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = MINUTE_S / per_minute if per_minute else 0.0
        self._paid_off = -math.inf

    def reserve(self, amount: float, now: float) -> float:
        """Take `amount`; the time from which it may be used."""
        turn = max(self._paid_off, now - BURST_S)
        self._paid_off = turn + amount * self._seconds_each
        return turn

    def add(self, amount: float) -> None:
        """Take more, or give back a negative amount."""
        self._paid_off += amount * self._seconds_each
