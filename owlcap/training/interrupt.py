"""SIGTERM and SIGINT end a run where its state is whole, so that a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from owlcap.logging import get_logger

SIGNALS = (signal.SIGTERM, signal.SIGINT)

logger = get_logger(__name__)


class Interrupted(BaseException):
    """The run was asked to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def interruption(error: BaseException) -> Interrupted | None:
    """The Interrupted that an error is, or that Ray's compiled code made a SystemError of.

    While Ray starts, SIGTERM is Ray's: its handler raises SystemExit with the signal's number.
    """
    if isinstance(error, SystemError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
        return Interrupted(signal.SIGTERM)
    return error if isinstance(error, Interrupted) else None


class StopSignals:
    """Within this context the signals raise Interrupted; inside `whole()` they wait for its end.

    In another thread than the main one Python delivers no signals, and this does nothing.
    """

    def __init__(self) -> None:
        self._pending: int | None = None
        self._inside = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}
        self.arm()
        return self

    def arm(self) -> None:
        """Take the signals (again: Ray takes SIGTERM for itself when it starts)."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
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


@contextmanager
def ends_on_signals(before_training: str) -> Iterator[StopSignals]:
    """A whole run: a signal that nobody inside has handled ends the process with one line.

    Args:
        before_training: what such a signal found, e.g. "nothing was trained yet".

    Raises:
        SystemExit: with the signal's exit code.
    """
    stop = StopSignals()
    try:
        with stop:
            yield stop
    except (Interrupted, SystemError, SystemExit) as error:
        interrupted = interruption(error)
        if interrupted is None:
            raise
        logger.warning("%s: %s", interrupted, before_training)
        raise SystemExit(interrupted.exit_code) from interrupted
