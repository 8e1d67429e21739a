"""Rate limits of a judge: requests and tokens a minute, over every process that asks it."""

from __future__ import annotations

from typing import Any, Protocol

from aiolimiter import AsyncLimiter

from owlcap.config import JudgeSection

MINUTE_S = 60.0


class RateLimiter(Protocol):
    """Lets requests through at a judge's rate."""

    async def admit(self, judge: str, tokens: float) -> None:
        """Return when one request of about `tokens` tokens may be sent to the judge of this name."""
        ...

    async def settle(self, judge: str, extra_tokens: float) -> None:
        """Tell that an admitted request took more tokens than said (or fewer, as a negative number)."""
        ...


class LocalLimiter:
    """Limits of the judges that one process asks.

    A request larger than a minute's tokens is admitted as if it took a whole minute's.
    """

    def __init__(self, judges: dict[str, JudgeSection]) -> None:
        self._requests = {
            name: AsyncLimiter(judge.requests_per_minute, MINUTE_S)
            for name, judge in judges.items()
            if judge.requests_per_minute
        }
        self._tokens = {
            name: AsyncLimiter(judge.tokens_per_minute, MINUTE_S)
            for name, judge in judges.items()
            if judge.tokens_per_minute
        }
        self._debt = dict.fromkeys(self._tokens, 0.0)

    async def admit(self, judge: str, tokens: float) -> None:
        """See RateLimiter."""
        if judge in self._requests:
            await self._requests[judge].acquire()
        if judge in self._tokens:
            wanted, self._debt[judge] = tokens + self._debt[judge], 0.0
            limiter = self._tokens[judge]
            amount = min(max(wanted, 0.0), limiter.max_rate)
            self._debt[judge] += wanted - amount
            await limiter.acquire(amount)

    async def settle(self, judge: str, extra_tokens: float) -> None:
        """See RateLimiter."""
        if judge in self._debt:
            self._debt[judge] += extra_tokens


class SharedLimiter:
    """The limits of a Ray actor that holds a LocalLimiter: the same for every process that has the handle."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def admit(self, judge: str, tokens: float) -> None:
        """See RateLimiter."""
        await self._actor.admit.remote(judge, tokens)

    async def settle(self, judge: str, extra_tokens: float) -> None:
        """See RateLimiter."""
        await self._actor.settle.remote(judge, extra_tokens)
