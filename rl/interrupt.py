"""SIGTERM and SIGINT end a run where its state is whole, so that a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """The run was asked to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopSignals:
    """Within this context the signals raise Interrupted; inside `whole()` they wait for its end.

    In another thread than the main one Python delivers no signals, and this does nothing.
    """

    def __init__(self) -> None:
        self._pending: int | None = None
        self._inside = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A block that must not be cut in two: a signal meanwhile raises at its end, a second one at once."""
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
        if self._pending is not None:
            raise Interrupted(self._pending)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._inside and self._pending is None:
            self._pending = number
        else:
            raise Interrupted(number)
