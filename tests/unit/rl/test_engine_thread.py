"""Jobs of the rollout engines: one at a time, weights first, nothing after a failure."""

from __future__ import annotations

import threading

import pytest

from rl.engine_thread import EngineThread


def test_weights_go_before_work_that_has_not_begun() -> None:
    done: list[str] = []
    begin = threading.Event()
    with EngineThread() as thread:
        thread.submit(begin.wait)
        jobs = [thread.submit(lambda name=name: done.append(name)) for name in ("generate 2", "generate 3")]
        jobs.append(thread.submit(lambda: done.append("weights"), first=True))
        begin.set()
        for job in jobs:
            job.result(timeout=10)
    assert done == ["weights", "generate 2", "generate 3"]


def test_after_a_failure_every_later_job_fails_with_it() -> None:
    def fail() -> None:
        raise RuntimeError("the engine is gone")

    done: list[str] = []
    with EngineThread() as thread:
        first = thread.submit(fail)
        second = thread.submit(lambda: done.append("generate"))
        with pytest.raises(RuntimeError, match="the engine is gone"):
            second.result(timeout=10)
        assert first.exception(timeout=10) is second.exception(timeout=10)
    assert done == []


def test_what_has_not_begun_at_the_end_is_not_begun() -> None:
    done: list[str] = []
    begin, began = threading.Event(), threading.Event()
    thread = EngineThread()

    def at_hand() -> None:
        began.set()
        begin.wait()
        done.append("at hand")

    thread.submit(at_hand)
    thread.submit(lambda: done.append("queued"))
    assert began.wait(timeout=10)
    threading.Timer(0.1, begin.set).start()
    thread.__exit__()
    assert done == ["at hand"]
