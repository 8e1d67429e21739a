"""Signals end a run between two updates, never within one."""

from __future__ import annotations

import signal
import sys

import pytest

from owlcap.training.interrupt import Interrupted, StopSignals, ends_on_signals, interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_raises_at_once(number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match=number.name) as caught, StopSignals():
        signal.raise_signal(number)
    assert caught.value.exit_code == 128 + number


def signalled_inside(done: list[str], times: int = 1) -> None:
    with StopSignals() as stop:
        with stop.whole():
            for _ in range(times):
                signal.raise_signal(signal.SIGTERM)
                done.append("inside")
        done.append("after")


def test_a_signal_within_a_whole_block_waits_for_its_end() -> None:
    done: list[str] = []
    with pytest.raises(Interrupted):
        signalled_inside(done)
    assert done == ["inside"]


def test_a_second_signal_within_a_whole_block_does_not_wait() -> None:
    done: list[str] = []
    with pytest.raises(Interrupted):
        signalled_inside(done, times=2)
    assert done == ["inside"]


def test_an_error_within_a_whole_block_is_not_hidden_by_the_signal() -> None:
    def fail() -> None:
        with StopSignals() as stop, stop.whole():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()


def test_the_former_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_nobody_handles_ends_the_process_with_its_code(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as caught, ends_on_signals("nothing was trained yet"):
        signal.raise_signal(number)
    assert caught.value.code == 128 + number


def test_an_interruption_inside_compiled_code_is_still_one() -> None:
    """Ray's loop in C++ drops the status of a signal handler that raised, and Python makes a SystemError of it."""
    with pytest.raises(SystemExit) as caught, ends_on_signals("nothing was trained yet"):
        raise SystemError("returned a result with an exception set") from Interrupted(signal.SIGTERM)
    assert caught.value.code == 143


@pytest.mark.parametrize("compiled", [False, True])
def test_a_signal_that_ray_takes_while_it_starts_is_an_interruption(
    compiled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def ray_starts() -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as ray.init does
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit as error:
            if compiled:
                raise SystemError("returned a result with an exception set") from error
            raise

    with pytest.raises(SystemExit) as caught, ends_on_signals("nothing was trained yet"):
        ray_starts()
    assert caught.value.code == 128 + signal.SIGTERM
    assert "SIGTERM: nothing was trained yet" in caplog.text


def test_a_run_that_ends_with_a_code_of_its_own_keeps_it() -> None:
    with pytest.raises(SystemExit) as caught, ends_on_signals("nothing was trained yet"):
        sys.exit(130)
    assert caught.value.code == 130


def test_another_system_error_stays_what_it_is() -> None:
    with pytest.raises(SystemError, match="bad argument"), ends_on_signals("nothing was trained yet"):
        raise SystemError("bad argument")
    assert interruption(SystemError("bad argument")) is None
