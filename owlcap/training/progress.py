"""Progress of a run on the driver: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from owlcap.logging import console, get_logger

logger = get_logger(__name__)
LINES_WITHOUT_TERMINAL = 10  # of one stage

Update = Callable[[int, str], None]


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Update]:
    """A stage of `total` units of which `done` are behind us; yields update(done, text beside the bar)."""
    if not console().is_terminal:
        yield _lines(title, total, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console()) as bar:
        task = bar.add_task(title, total=total, completed=done, text="")

        def update(done: int, text: str) -> None:
            bar.update(task, completed=done, text=text)

        yield update


def _lines(title: str, total: int, start: int) -> Update:
    shown = start * LINES_WITHOUT_TERMINAL // max(1, total)

    def update(done: int, text: str) -> None:
        nonlocal shown
        part = done * LINES_WITHOUT_TERMINAL // max(1, total)
        if part > shown:
            shown = part
            logger.info("%s %d/%d  %s", title, done, total, text)

    return update
