"""`owlcap compare`: what it takes, prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.cli import main

ROW = {
    "id": "a",
    "reference": "A woman in a red coat walks a dog.",
    "captions": ["A woman walks a dog.", "A woman in a red coat walks a red dog in a red coat.", "A man sits."],
}
CSER = "judge: {kind: lexical}\nterms: [{name: cser}]\n"


def run(*arguments: str) -> int:
    try:
        main(["compare", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    (tmp_path / "words.py").write_text("def words(caption):\n    return float(len(caption.split()))\n")
    texts = {
        "cser.yaml": CSER,
        "words.yaml": f"terms: [{{name: '{tmp_path}/words.py:words'}}]\n",
        "c.jsonl": json.dumps(ROW),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return [str(tmp_path / name) for name in texts]


def test_two_rewards_are_compared_in_tables_and_json(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*given, "--out", str(tmp_path / "report.json")) == 0
    printed = capsys.readouterr().out
    assert "cser, words" in printed
    assert ROW["captions"][1] in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert [one["name"] for one in report["rewards"]] == ["cser", "words"]
    assert report["rewards"][1]["length_within"] == pytest.approx(1)
    assert report["pairs"][0]["num_captions"] == 3


def test_settings_go_over_all_rewards(given: list[str], tmp_path: Path) -> None:
    (tmp_path / "f1.yaml").write_text(CSER + "cser: {combine: f1}\n")
    assert run(given[0], str(tmp_path / "f1.yaml"), given[2], "cser.combine=f1", "--out", str(tmp_path / "r.json")) == 0
    first, second = json.loads((tmp_path / "r.json").read_text())["rewards"]
    assert first["mean"] == second["mean"]


@pytest.mark.parametrize("missing", ["words.yaml", "c.jsonl"])
def test_what_is_missing_is_told(given: list[str], missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*(one for one in given if not one.endswith(missing))) == 2
    assert "allowed" in capsys.readouterr().err
