"""What the commands print, and where: results on stdout, errors and progress on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EISDIR
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.errors import ConfigError, OwlcapError

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str) -> None:
    """Print a result as it is, without wrapping or markup: it may be piped into a file."""
    sys.stdout.write(text + "\n")


def check_out(out: Path | None) -> None:
    """Find out whether --out can be written before the work that it is to hold is done; its folder is made.

    Raises:
        ConfigError: it is a folder, or it or its folder cannot be written.
    """
    if out is None:
        return
    try:
        if out.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        out.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(out if out.exists() else out.parent, os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))
    except OSError as error:
        raise ConfigError(
            f"--out cannot be written: {error.strerror}",
            where=str(out),
            cure="name a file in a folder that you can write to",
        ) from error


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
