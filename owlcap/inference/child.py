"""The new process of `owlcap.inference.process`: reads a task, calls its function, writes the answer."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from owlcap.errors import OwlcapError


def main(task: Path, answer: Path) -> None:
    """Call the task's function; the answer is what it returned, or the project's error that it raised."""
    function, args, kwargs = pickle.loads(task.read_bytes())
    try:
        value = function(*args, **kwargs)
    except OwlcapError as error:
        value = error
    temporary = answer.with_suffix(".writing")
    temporary.write_bytes(pickle.dumps(value))
    temporary.rename(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
