"""One thread for everything that uses the rollout engines: sampling, weights, evaluation, one job at a time.

The driver hands jobs over and goes on with its own work, such as an update. Nothing else needs a lock, since nothing
else touches the pool.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

from owlcap.training.group import LearnerLostError

T = TypeVar("T")
JOIN_S = 30.0  # for the job at hand to notice that the engines are gone


@dataclass(order=True, slots=True)
class _Job:
    later: bool
    number: int
    work: Callable[[], Any] | None = field(compare=False)  # None: the end
    done: Future[Any] = field(compare=False, default_factory=Future)


class EngineThread:
    """Runs jobs in the order they came, those with `first` before the others.

    After a job has failed every later one fails with its error: what the engines hold is not known then. A learner that
    is lost while it sends them weights is another matter: it starts again, and so do its engines.
    """

    def __init__(self) -> None:
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._number = count()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="engines", daemon=True)
        self._thread.start()

    def __enter__(self) -> EngineThread:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the job at hand end, and no other; it ends soon once the pool is closed."""
        self._jobs.put(_Job(False, -1, None))
        self._thread.join(JOIN_S)

    def submit(self, work: Callable[[], T], *, first: bool = False) -> Future[T]:
        """Queue a job; its result or error is in the future."""
        job = _Job(not first, next(self._number), work)
        self._jobs.put(job)
        return job.done

    def _run(self) -> None:
        while (job := self._jobs.get()).work is not None:
            if not job.done.set_running_or_notify_cancel():
                continue
            if self._failure is not None:
                job.done.set_exception(self._failure)
                continue
            try:
                result = job.work()
            except LearnerLostError as error:
                job.done.set_exception(error)
            except Exception as error:
                self._failure = error
                job.done.set_exception(error)
            else:
                job.done.set_result(result)
