"""`owlcap score`: what it reads, prints and writes."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from owlcap.cli import main
from owlcap.evaluation.rescoring import results_file

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
    assert run(*files(tmp_path, ROW | {"caption": "A dog."}, rewards=rewards)) == 1  # nothing scored is no success
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
        assert run(*given, "--out", str(tmp_path / "out.jsonl"), *more) == 1
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


def test_a_caption_with_half_a_surrogate_pair_is_scored_and_kept(tmp_path: Path) -> None:
    given = files(tmp_path, ROW | {"caption": "\ud800 " + str(ROW["reference"])})
    out = tmp_path / "out.jsonl"
    assert run(*given, "--out", str(out)) == 0
    before = out.read_text()
    assert run(*given, "--out", str(out), "--resume") == 0
    assert out.read_text() == before
    assert json.loads(before)["results"][0]["caption"].startswith("\ud800")


def test_a_file_that_another_process_writes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = files(tmp_path, ROW | {"caption": "x"})
    out = tmp_path / "out.jsonl"
    with results_file(out, resume=False):
        assert run(*given, "--out", str(out), "--resume") == 2
    assert "another process writes to --out" in capsys.readouterr().err


def test_a_reward_that_fails_is_told_once_and_without_tracebacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for body in ("raise ValueError('boom')", "raise SystemExit(3)"):
        (tmp_path / "bad.py").write_text(f"def bad(caption):\n    {body}\n")
        given = files(
            tmp_path,
            *({"id": str(i), "reference": "A man waves.", "captions": ["x", "y"]} for i in range(4)),
            rewards=f"terms: [{{name: '{tmp_path}/bad.py:bad'}}]\n",
        )
        assert run(*given) == 2
        gc.collect()
        told = capsys.readouterr().err
        assert "the reward bad raised" in told
        assert "Traceback" not in told
        assert not [record for record in caplog.records if record.name == "asyncio"]


def test_rows_of_the_file_that_are_not_among_the_captions_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    run(*files(tmp_path, ROW | {"caption": "a man"}, ROW | {"id": "b", "caption": "a dog"}), "--out", str(out))
    assert run(*files(tmp_path, ROW | {"caption": "a man"}), "--out", str(out), "--resume") == 0
    assert "1 of them are not among the captions given" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{broken\n", "broken JSON"),
        (b'{"id": "a", "caption": "x"}\n', "the row has no 'reference'"),
        (b'{"id": "a", "reference": "r", "caption": "x", "captions": ["y"]}\n', "the row has captions and caption"),
        (b'{"id": "a", "reference": "\xff", "caption": "x"}\n', "not UTF-8"),
    ],
)
def test_a_bad_row_is_named_with_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: bytes, told: str
) -> None:
    given = files(tmp_path, ROW | {"caption": "x"})
    with Path(given[0]).open("ab") as file:
        file.write(line)
    assert run(*given) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "c.jsonl:2" in error


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    given = files(tmp_path, ROW | {"caption": "x"})
    Path(given[0]).write_bytes(b"\xef\xbb\xbf" + Path(given[0]).read_bytes())
    assert run(*given) == 0
