"""The servers of one judge: the least loaded is asked, and one that fails again and again is left alone for a while.

The circuit breaker of an endpoint: after `breaker_failures` requests in a row that got no answer (no connection,
a time-out, HTTP 5xx), or one refused connection, the endpoint rests for `breaker_rest_s`. Then one request tries it;
its outcome decides. While all endpoints rest, calls wait, each no longer than its own deadline: an outage shorter
than a call's deadline costs no caption its score, and a dead server is not hammered.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import openai

from owlcap.config import JudgeSection
from owlcap.logging import get_logger

LOOK_AGAIN_S = 0.2  # at the endpoints, while another request tries one of them

logger = get_logger(__name__)


@dataclass(slots=True)
class Endpoint:
    """One server: its client and the state of its circuit breaker."""

    url: str
    client: openai.AsyncOpenAI
    in_flight: int = 0
    num_failures: int = 0  # in a row
    rests_until: float = -math.inf  # of the event loop's clock
    is_tried: bool = False  # by one request after a rest

    def may_be_asked(self, now: float) -> bool:
        """Whether a request may go there."""
        return now >= self.rests_until and not self.is_tried


class Endpoints:
    """All servers of a judge, in one event loop."""

    def __init__(self, endpoints: Sequence[Endpoint], settings: JudgeSection) -> None:
        self._all = tuple(endpoints)
        self._settings = settings

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[openai.AsyncOpenAI]:
        """The client of the least loaded server that may be asked; waits while all of them rest.

        What the block raises tells whether the server answered.
        """
        endpoint = await self._wait_for_one()
        is_trial = endpoint.num_failures > 0 and math.isfinite(endpoint.rests_until)
        endpoint.is_tried = is_trial
        endpoint.in_flight += 1
        try:
            yield endpoint.client
        except openai.OpenAIError as error:
            if is_outage(error):
                self._failed(endpoint, error)
            else:
                self._answered(endpoint)
            raise
        except Exception:  # the server answered, and the answer is what is wrong
            self._answered(endpoint)
            raise
        else:
            self._answered(endpoint)
        finally:
            endpoint.in_flight -= 1
            if is_trial:
                endpoint.is_tried = False

    def clients(self) -> tuple[tuple[str, openai.AsyncOpenAI], ...]:
        """Address and client of every server."""
        return tuple((endpoint.url, endpoint.client) for endpoint in self._all)

    async def close(self) -> None:
        """Close all clients."""
        await asyncio.gather(*(endpoint.client.close() for endpoint in self._all))

    async def _wait_for_one(self) -> Endpoint:
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            ready = [endpoint for endpoint in self._all if endpoint.may_be_asked(now)]
            if ready:
                return min(ready, key=lambda endpoint: endpoint.in_flight)
            rest = min(endpoint.rests_until for endpoint in self._all) - now
            await asyncio.sleep(max(rest, LOOK_AGAIN_S))

    def _failed(self, endpoint: Endpoint, error: openai.OpenAIError) -> None:
        now = asyncio.get_running_loop().time()
        endpoint.num_failures += 1
        enough = 1 if is_refused(error) or endpoint.is_tried else self._settings.breaker_failures
        if endpoint.num_failures < enough or now < endpoint.rests_until:
            return
        endpoint.rests_until = now + self._settings.breaker_rest_s
        logger.warning(
            "the judge's server %s rests for %g s after %d failed requests in a row: %s",
            endpoint.url,
            self._settings.breaker_rest_s,
            endpoint.num_failures,
            type(error).__name__,
        )

    def _answered(self, endpoint: Endpoint) -> None:
        if math.isfinite(endpoint.rests_until):
            logger.info("the judge's server %s answers again", endpoint.url)
        endpoint.num_failures = 0
        endpoint.rests_until = -math.inf


def is_outage(error: openai.OpenAIError) -> bool:
    """Whether the server gave no answer of its own: no connection, a time-out, HTTP 5xx."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def is_refused(error: BaseException | None) -> bool:
    """Whether no connection came about: refused, no such host, no trust.

    A connection that was lost once it stood is a ConnectionError other than refused, or no OSError at all.
    """
    if not isinstance(error, openai.APIConnectionError) or isinstance(error, openai.APITimeoutError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return True
        if isinstance(cause, OSError) and not isinstance(cause, ConnectionError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
