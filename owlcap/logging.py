"""Logs: readable lines on the terminal, dated lines in the run's logs/ folder.

Only this project's packages are configured; libraries keep their own settings. Actors log plain text
(Ray forwards it without a terminal); the driver logs through the console that progress bars also use,
so that lines and bars do not tear each other.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

PACKAGES = ("owlcap", "rl", "rewards", "rollout", "sft", "motion")
FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@cache
def console() -> Console:
    """The driver's one terminal, on standard error so that standard output stays clean for results."""
    return Console(stderr=True)


def get_logger(name: str) -> logging.Logger:
    """A module's logger; call with `__name__`."""
    return logging.getLogger(name)


def setup_logging(level: str = "INFO", folder: Path | None = None) -> None:
    """Send this project's logs to the terminal, and to `folder`/driver.log when a folder is given.

    Calling it again replaces the earlier handlers, so that a second run in one process writes to its
    own folder only.
    """
    terminal: logging.Handler
    if console().is_terminal:
        terminal = RichHandler(console=console(), show_path=False, log_time_format="[%X]")
    else:  # into a file or a pipe: one line a message, never wrapped
        terminal = logging.StreamHandler()
        terminal.setFormatter(logging.Formatter(FILE_FORMAT))
    handlers: list[logging.Handler] = [terminal]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(folder / "driver.log", encoding="utf-8")
        file.setFormatter(logging.Formatter(FILE_FORMAT))
        handlers.append(file)
    _install(level, handlers)


def setup_actor_logging(level: str = "INFO") -> None:
    """Plain text on standard error, for code that runs inside a Ray actor."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FILE_FORMAT))
    _install(level, [handler])


def _install(level: str, handlers: list[logging.Handler]) -> None:
    logging.getLogger("stamina").setLevel(logging.ERROR)  # one line a retry that says nothing: retries are counted
    closed: set[logging.Handler] = set()
    for package in PACKAGES:
        logger = logging.getLogger(package)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            if old not in closed:
                old.close()
                closed.add(old)
        for handler in handlers:
            logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
