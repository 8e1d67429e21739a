"""The data commands as a user gives them: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from owlcap.cli.app import app, main
from tests.conftest import moving_square, write_clip

ROW = {"id": "a", "video": "a.mp4", "conversations": [{"value": "<video>\nWhat?"}, {"value": "A square moves."}]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_clip(tmp_path / "a.mp4", moving_square(1))
    path = tmp_path / "theirs.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_import_check_and_export_follow_one_another(source: Path) -> None:
    ours, swift = source.with_name("ours.jsonl"), source.with_name("swift.jsonl")

    code, told = run("import", source, ours)
    assert (code, "format     owlcap" in told, "written    1 rows" in told) == (0, True, True)
    code, told = run("check", ours)
    assert (code, "nothing wrong" in told) == (0, True)
    code, told = run("export", ours, swift, "--format", "swift")
    assert (code, told.strip()) == (0, f"1 rows written to {swift}")


def test_problems_are_an_exit_code_of_their_own(source: Path) -> None:
    with source.open("a") as file:
        file.write("{broken\n")

    code, told = run("import", source, source.with_name("ours.jsonl"))

    assert code == 1
    assert f"problem    1 broken JSON\n             {source}:2: " in told


def test_what_cannot_be_done_at_all_is_a_users_error(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "import", str(source.with_name("absent")), str(source.with_name("ours.jsonl"))])
    assert ended.value.code == 2
    assert "no such file" in capsys.readouterr().err


def test_a_leak_is_found_by_the_command(source: Path) -> None:
    ours, test = source.with_name("ours.jsonl"), source.with_name("test.jsonl")
    run("import", source, ours)
    test.write_text(ours.read_text())

    code, told = run("check", ours, "--against", test)

    assert code == 1
    assert "1 ids, 1 videos, 0 captions in common (1 rows)" in told
