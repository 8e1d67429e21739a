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


def test_several_files_are_one_set_and_repeated_ids_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, *rewards = files(tmp_path, ROW | {"caption": "A dog."})
    assert run(file, file, *rewards) == 0
    printed = capsys.readouterr().out
    assert "ids of several rows, each scored: a" in printed
    assert "2 of 2 captions scored" in printed


def test_results_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = files(tmp_path, ROW | {"caption": "A dog."})
    out = tmp_path / "out.jsonl"
    out.write_text("mine\n")
    assert run(*given, "--out", str(out)) == 2
    assert "--resume" in capsys.readouterr().err
    assert out.read_text() == "mine\n"


def test_resuming_scores_what_is_missing_and_reports_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = files(tmp_path, *(ROW | {"id": id, "caption": "A dog."} for id in "abc"))
    out = tmp_path / "out.jsonl"
    run(*given, "--out", str(out))
    whole = capsys.readouterr().out
    first, second, third = out.read_text().splitlines(keepends=True)
    out.write_text(first + third + second[:20])  # as a crash in the middle of a row leaves it
    assert run(*given, "--out", str(out), "--resume") == 0
    assert capsys.readouterr().out == f"2 rows kept from {out}\n{whole}"
    assert sorted(out.read_text().splitlines(keepends=True)) == sorted([first, second, third])


def test_unscored_captions_are_kept_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.py").write_text("def nothing(caption):\n    return None\n")
    given = files(tmp_path, ROW | {"caption": "A dog."}, rewards=f"terms: [{{name: '{tmp_path}/f.py:nothing'}}]\n")
    for more in ([], ["--resume"]):
        assert run(*given, "--out", str(tmp_path / "out.jsonl"), *more) == 0
    assert capsys.readouterr().out.count("unscored, 1: nothing") == 2


def test_another_file_is_not_taken_for_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = files(tmp_path, ROW | {"caption": "A dog."})
    assert run(*given, "--resume", "--out", given[0]) == 2
    assert "no result of owlcap score" in capsys.readouterr().err


def test_a_dry_run_counts_calls_and_makes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = "judge: {kind: openai, base_urls: ['http://127.0.0.1:9/v1'], model: none}\n"
    given = files(tmp_path, ROW | {"captions": ["A dog.", "A cat."]}, rewards=judge)
    out = tmp_path / "out.jsonl"
    assert run(*given, "--dry-run", "--out", str(out)) == 0
    assert "1 rows, 2 captions: at most 7 judge calls" in capsys.readouterr().out
    assert not out.exists()


def test_keypoints_of_a_row_reach_the_reward(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def points(caption, sample):\n    return float(len(sample.keypoints))\n")
    given = files(
        tmp_path,
        ROW | {"caption": "A dog.", "keypoints": ["a dog", "a coat"]},
        rewards=f"terms: [{{name: '{tmp_path}/f.py:points'}}]\n",
    )
    out = tmp_path / "out.jsonl"
    assert run(*given, "--out", str(out)) == 0
    assert json.loads(out.read_text())["results"][0]["total"] == 2.0
