"""Progress on the driver: a bar with the headline on a terminal, a line now and then in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

import owlcap.training.progress as ours
from owlcap.training.progress import progress


def on(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=120)
    monkeypatch.setattr(ours, "console", lambda: console)
    return shown


def test_a_terminal_shows_a_bar_with_the_headline_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on(monkeypatch, terminal=True)
    with progress("RL", 20, done=4) as update:
        update(5, "reward 1.250")
    assert "5/20" in shown.getvalue()
    assert "reward 1.250" in shown.getvalue()


def test_a_log_gets_ten_lines_of_a_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    shown = on(monkeypatch, terminal=False)
    with caplog.at_level("INFO", logger="owlcap.training.progress"), progress("RL", 100) as update:
        for step in range(1, 101):
            update(step, f"reward {step}")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 10
    assert lines[0] == "RL 10/100  reward 10"
    assert shown.getvalue() == ""


def test_a_resumed_run_does_not_tell_again_what_is_behind_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on(monkeypatch, terminal=False)
    with caplog.at_level("INFO", logger="owlcap.training.progress"), progress("RL", 10, done=5) as update:
        update(6, "reward 1.0")
    assert [record.getMessage() for record in caplog.records] == ["RL 6/10  reward 1.0"]
