"""Logs: readable lines on the terminal, dated lines in the run's logs/ folder.

    logs/driver.log       the driver
    logs/rollout-0.log    an actor: rollout-N, reward-N, learner-N; what follows a restart is appended
    logs/ray.txt          where Ray keeps everything that actors print, and where its metrics can be scraped

Only this project's packages are configured; of libraries, an actor's file takes warnings and errors. The driver logs
through the console that progress bars also use, so that lines and bars do not tear each other. Actors learn the
folder from their environment: `actor_environment` goes into the runtime environment of each.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

PACKAGES = ("owlcap", "rl", "rewards", "rollout", "sft", "motion")
FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FOLDER_VARIABLE = "OWLCAP_LOGS"

_folder: Path | None = None  # of the run that this driver process is doing


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
    global _folder
    _folder = folder
    terminal: logging.Handler
    if console().is_terminal:
        terminal = RichHandler(console=console(), show_path=False, log_time_format="[%X]")
    else:  # into a file or a pipe: one line a message, never wrapped
        terminal = logging.StreamHandler()
        terminal.setFormatter(logging.Formatter(FILE_FORMAT))
    handlers: list[logging.Handler] = [terminal]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(_file_handler(folder / "driver.log"))
    _install(level, handlers)


def actor_environment() -> dict[str, str]:
    """Environment variables that tell an actor's process the logs folder of the run it works for."""
    return {} if _folder is None else {FOLDER_VARIABLE: str(_folder)}


def actor_folder() -> Path | None:
    """The logs folder of the run that this actor works for; None outside of a run."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else None


def setup_actor_logging(name: str, level: str = "INFO") -> None:
    """Inside a Ray actor: plain text on standard error, and in the run's logs/NAME.log.

    A process that works for no run (`actor_environment` did not reach it) is left as it is. A folder that this
    machine cannot write to is said once; the actor works on.
    """
    folder = actor_folder()
    if folder is None:
        return
    terminal = logging.StreamHandler()
    terminal.setFormatter(logging.Formatter(FILE_FORMAT))
    handlers: list[logging.Handler] = [terminal]
    problem = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(_file_handler(folder / f"{name}.log"))
    except OSError as error:
        problem = error
    _install(level, handlers)
    if problem is not None:
        get_logger(__name__).warning("%s is not written: %s", folder / f"{name}.log", problem.strerror or problem)
        return
    others = _file_handler(folder / f"{name}.log")
    others.setLevel(logging.WARNING)
    logging.getLogger().addHandler(others)


def _file_handler(file: Path) -> logging.Handler:
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FILE_FORMAT))
    return handler


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
