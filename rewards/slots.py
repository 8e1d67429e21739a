"""Calls in flight of one judge: so many at a time, and a call's further tries before new calls."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count


class Slots:
    """Lets `limit` holders in at a time.

    A call gives its slot back while it waits for its next try, so that the judge is never idle for it, and is then
    let in before calls that have not begun: its deadline is running, theirs are not.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []  # a heap: further tries, then who came first
        self._arrival = count()

    @asynccontextmanager
    async def hold(self, *, further_try: bool) -> AsyncIterator[None]:
        """Hold a slot for the block."""
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (not further_try, next(self._arrival), turn))
        self._let_in()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += 1
                self._let_in()

    def _let_in(self) -> None:
        while self._free and self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():  # done: who waited was cancelled
                turn.set_result(None)
                self._free -= 1
