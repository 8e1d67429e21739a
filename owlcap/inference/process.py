"""A function call in a fresh Python process with its own environment variables, and the answer back.

Engines want variables that must be set before their libraries are imported, and give memory back only when their
process ends. Function, arguments and answer travel as pickles in a private temporary folder.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from owlcap.errors import OwlcapError, RolloutError

P = ParamSpec("P")
R = TypeVar("R")

SHOWN_LINES = 8  # of the end of a failed process's error output


def call_in_process(
    function: Callable[P, R], environment: Mapping[str, str], deadline_s: float, *args: P.args, **kwargs: P.kwargs
) -> R:
    """`function(*args, **kwargs)` in a new process.

    Args:
        function: at the top level of an importable module.
        environment: added to this process's own.

    Raises:
        OwlcapError: the one that the function raised.
        RolloutError: the process died or missed the deadline; with the end of its error output.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    with tempfile.TemporaryDirectory(prefix="owlcap-process-") as scratch:
        task, answer, log = (Path(scratch, name) for name in ("task", "answer", "log"))
        task.write_bytes(pickle.dumps((function, args, kwargs)))
        command = [sys.executable, "-m", "owlcap.inference.child", str(task), str(answer)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=_full(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            try:
                status = process.wait(deadline_s)
            except subprocess.TimeoutExpired as error:
                raise RolloutError(f"the process gave no answer within {deadline_s:g} s", where=name) from error
            finally:
                process.kill()  # harmless where it has ended; after an interrupt nothing must stay behind
                process.wait()
        if not answer.exists():
            raise RolloutError(
                f"the process ended with exit status {status}: {_last_words(log)}",
                where=name,
                cure="check the installation with `owlcap doctor`",
            )
        value = pickle.loads(answer.read_bytes())
    if isinstance(value, OwlcapError):
        raise value
    return cast(R, value)


def _full(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the project importable, and the given variables."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **environment}


def _last_words(log: Path) -> str:
    """The end of a process's output."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-SHOWN_LINES:]) or "it said nothing"
