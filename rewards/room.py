"""Room for captions being scored: a group that waits for its turn does not spend its own deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Lets a group in while fewer than `limit` captions are being scored; a larger group gets in alone.

    Waiters are woken all at once and look again, in the order they came: none is forgotten when another that was
    woken is cancelled.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return when a group may come in; take its place at once with `taken`."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # in a new event loop nothing is being scored yet
            self._loop, self._taken, self._waiting = loop, 0, []
        while self._taken >= self._limit:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn

    @contextmanager
    def taken(self, num_captions: int) -> Iterator[None]:
        """Hold room for the block."""
        self._taken += num_captions
        try:
            yield
        finally:
            self._taken -= num_captions
            waiting, self._waiting = self._waiting, []
            for turn in waiting:
                if not turn.done():  # done: its group was cancelled
                    turn.set_result(None)
