"""`owlcap score`: what it reads, prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.cli import main

ROW = {"id": "a", "reference": "A woman in a red coat walks a dog."}


def run(*arguments: str) -> int:
    try:
        main(["score", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def files(folder: Path, *rows: object, rewards: str = "judge: {kind: lexical}\n") -> tuple[str, str, str]:
    (folder / "r.yaml").write_text(rewards + ("" if "terms" in rewards else "terms: [{name: cser}]\n"))
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "c.jsonl"), "--reward", str(folder / "r.yaml")


@pytest.mark.parametrize(
    "captions",
    [
        {"caption": ROW["reference"]},
        {"captions": [ROW["reference"]]},
        {"completions": [{"text": ROW["reference"]}]},
    ],
)
def test_all_forms_of_rows_are_scored_with_evidence(tmp_path: Path, captions: dict[str, object]) -> None:
    out = tmp_path / "out.jsonl"
    assert run(*files(tmp_path, ROW | captions), "--out", str(out)) == 0
    (result,) = json.loads(out.read_text())["results"]
    assert result["total"] > 0
    assert result["parts"]["cser"]["judgements"]


def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*files(tmp_path, ROW | {"caption": "A dog."}, {"id": "b"})) == 2
    assert "c.jsonl:2" in capsys.readouterr().err


def test_unscored_captions_are_counted_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.py").write_text("def nothing(caption):\n    return None\n")
    rewards = f"terms: [{{name: '{tmp_path}/f.py:nothing'}}]\n"
    assert run(*files(tmp_path, ROW | {"caption": "A dog."}, rewards=rewards)) == 0
    printed = capsys.readouterr().out
    assert "0 of 1 captions scored" in printed
    assert "unscored, 1: nothing" in printed
