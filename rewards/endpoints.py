"""The servers of one judge: the least loaded is asked, and one that fails again and again is left alone for a while.

The load of a server is its requests in flight, and one more for each of its failures in a row: what failed at one
server is tried at another first.

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
from rewards.chat import InvalidReply
from rewards.faults import ServerFault

LOOK_AGAIN_S = 0.2  # at the endpoints, while none may be asked

logger = get_logger(__name__)


@dataclass(slots=True)
class Endpoint:
    """One server: its client and the state of its circuit breaker."""

    url: str
    client: openai.AsyncOpenAI
    in_flight: int = 0
    num_failures: int = 0  # in a row
    fault: ServerFault | None = None  # the last of them
    rests_until: float | None = None  # of the event loop's clock; None: the breaker is closed
    is_tried: bool = False  # by one request, after a rest

    def may_be_asked(self, now: float) -> bool:
        """Whether a request may go there."""
        return self.rests_until is None or (now >= self.rests_until and not self.is_tried)

    @property
    def load(self) -> int:
        """What the choice goes by."""
        return self.in_flight + self.num_failures


class Endpoints:
    """All servers of a judge, in one event loop."""

    def __init__(self, endpoints: Sequence[Endpoint], settings: JudgeSection) -> None:
        self._all = tuple(endpoints)
        self._settings = settings

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[openai.AsyncOpenAI]:
        """The client of the least loaded server that may be asked; waits while all of them rest.

        A ServerFault or InvalidReply that the block raises tells how the server did.
        """
        endpoint = await self._wait_for_one()
        is_trial = endpoint.is_tried = endpoint.rests_until is not None
        endpoint.in_flight += 1
        try:
            yield endpoint.client
        except ServerFault as fault:
            if fault.is_outage:
                self._failed(endpoint, fault)
            else:
                self._answered(endpoint)
            raise
        except InvalidReply:
            self._answered(endpoint)
            raise
        else:
            self._answered(endpoint)
        finally:
            endpoint.in_flight -= 1
            if is_trial:
                endpoint.is_tried = False

    @property
    def fault(self) -> ServerFault | None:
        """Why a server is not asked, or was not answering a moment ago; None where all is well."""
        return next((endpoint.fault for endpoint in self._all if endpoint.fault is not None), None)

    def clients(self) -> tuple[tuple[str, openai.AsyncOpenAI], ...]:
        """Address and client of every server."""
        return tuple((endpoint.url, endpoint.client) for endpoint in self._all)

    async def close(self) -> None:
        """Close all clients."""
        await asyncio.gather(*(endpoint.client.close() for endpoint in self._all))

    async def _wait_for_one(self) -> Endpoint:
        loop = asyncio.get_running_loop()
        while True:
            ready = [endpoint for endpoint in self._all if endpoint.may_be_asked(loop.time())]
            if ready:
                return min(ready, key=lambda endpoint: endpoint.load)
            await asyncio.sleep(LOOK_AGAIN_S)

    def _failed(self, endpoint: Endpoint, fault: ServerFault) -> None:
        now = asyncio.get_running_loop().time()
        endpoint.num_failures += 1
        endpoint.fault = fault
        enough = 1 if fault.is_refused or endpoint.is_tried else self._settings.breaker_failures
        if endpoint.num_failures < enough or now < (endpoint.rests_until or -math.inf):
            return
        endpoint.rests_until = now + self._settings.breaker_rest_s
        logger.warning(
            "the judge's server %s rests for %g s after %d failed requests in a row: %s",
            endpoint.url,
            self._settings.breaker_rest_s,
            endpoint.num_failures,
            fault,
        )

    def _answered(self, endpoint: Endpoint) -> None:
        if endpoint.rests_until is not None:
            logger.info("the judge's server %s answers again", endpoint.url)
        endpoint.num_failures, endpoint.fault, endpoint.rests_until = 0, None, None
