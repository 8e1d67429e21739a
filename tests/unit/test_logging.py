"""Logs: where the driver's and the actors' lines go, and whose."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from owlcap.logging import actor_environment, get_logger, setup_actor_logging, setup_logging


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OWLCAP_LOGS", raising=False)
    before = [(logger, list(logger.handlers), logger.level) for logger in map(logging.getLogger, ("", "stamina"))]
    yield
    for logger, handlers, level in before:
        logger.handlers = handlers
        logger.setLevel(level)


def as_actor(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """What happens in an actor's process that works for the run of this logs folder."""
    setup_logging(folder=folder)
    for variable, value in actor_environment().items():
        monkeypatch.setenv(variable, value)
    setup_actor_logging(name)


def test_the_driver_writes_into_the_runs_folder(tmp_path: Path) -> None:
    setup_logging(folder=tmp_path / "logs")
    get_logger("rl.trainer").info("step 1")
    assert (tmp_path / "logs" / "driver.log").read_text().endswith("INFO rl.trainer: step 1\n")


def test_a_second_run_of_one_process_writes_into_its_own_folder_only(tmp_path: Path) -> None:
    setup_logging(folder=tmp_path / "sft")
    setup_logging(folder=tmp_path / "rl")
    get_logger("rl.trainer").info("step 1")
    assert (tmp_path / "sft" / "driver.log").read_text() == ""
    assert actor_environment() == {"OWLCAP_LOGS": str(tmp_path / "rl")}


def test_an_actor_writes_a_file_of_its_own_and_goes_on_with_it_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in ("first life", "second life"):
        as_actor(monkeypatch, tmp_path, "rollout-1")
        get_logger("rollout.worker").info(line)
    text = (tmp_path / "rollout-1.log").read_text()
    assert [line.rpartition(": ")[2] for line in text.splitlines()] == ["first life", "second life"]


def test_an_actors_file_has_the_warnings_of_libraries_and_not_their_chatter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_actor(monkeypatch, tmp_path, "learner-0")
    library = logging.getLogger("a_library")
    library.setLevel("INFO")
    library.info("chatter")
    library.warning("out of disk")
    assert (tmp_path / "learner-0.log").read_text().endswith("WARNING a_library: out of disk\n")
    assert "chatter" not in (tmp_path / "learner-0.log").read_text()


def test_an_actor_of_no_run_is_left_as_it_is() -> None:
    before = list(logging.getLogger("rewards").handlers)
    setup_actor_logging("reward-0")
    assert logging.getLogger("rewards").handlers == before


def test_a_folder_that_an_actor_cannot_write_to_is_said_and_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file is in the way")
    monkeypatch.setenv("OWLCAP_LOGS", str(tmp_path / "logs"))
    setup_actor_logging("reward-0")
    get_logger("rewards.service").info("scored")
    told = capsys.readouterr().err
    assert "reward-0.log is not written: File exists" in told
    assert "scored" in told


def test_retried_requests_are_not_told_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    setup_logging()
    logging.getLogger("stamina").warning("stamina.retry_scheduled")
    assert caplog.text == ""
