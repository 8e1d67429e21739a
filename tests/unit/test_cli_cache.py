"""`owlcap cache`: looking at the judges' replies on this machine, and removing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from owlcap.cli.app import main
from owlcap.config import CacheSection
from rewards.cache import Reply, ReplyCache, cache_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "judge.sqlite"
    cache = ReplyCache(CacheSection(path=str(path)))
    for number in range(3):
        cache.put(cache_key("m", "t", {}, str(number)), Reply("text", "id"), model="judge-a", kind="units")
    cache.close()
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["cache", *arguments])
    return int(ended.value.code or 0)


def test_stats_count_replies_by_model(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", "--path", str(file)) == 0
    shown = capsys.readouterr().out
    assert "3 replies" in shown
    assert "judge-a: 3" in shown


def test_clear_removes_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clear", "--yes", "--path", str(file)) == 0
    assert not file.exists()
    assert "freed" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["stats", "clear"])
def test_no_file_is_one_clear_error(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--path", str(tmp_path / "none.sqlite")) == 2
    assert "none.sqlite" in capsys.readouterr().err


def test_a_file_that_is_no_cache_is_not_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes.sqlite"
    file.write_text("my notes")
    assert run("clear", "--yes", "--path", str(file)) == 2
    assert file.read_text() == "my notes"
