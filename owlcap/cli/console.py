"""What the commands print, and where: results on stdout, errors and progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from owlcap.errors import OwlcapError

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str) -> None:
    """Print a result as it is, without wrapping or markup: it may be piped into a file."""
    sys.stdout.write(text + "\n")


def stderr_console() -> Console:
    """A console on stderr; plain text where that is not a terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_error(error: OwlcapError) -> None:
    """Print what is wrong, where, what is allowed and what to do."""
    from rich.text import Text

    # Ray raises a remote error as a class of both its own and ours; the one the actor raised is `cause`.
    cause = getattr(error, "cause", None)
    told = str(cause if isinstance(cause, OwlcapError) else error)
    what, _, rest = told.partition("\n")
    text = Text.assemble(("error: ", "bold red"), (what, "red"))
    if rest:
        text.append("\n" + rest)
    stderr_console().print(text)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show one bar on stderr while the block runs; call what it gives with (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr_console(), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
