"""Captions files: every broken row is named with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.config import RlRun
from owlcap.config_io import load_run
from owlcap.errors import DataError
from owlcap.evaluation.benchmarks.texts import read_texts
from owlcap.evaluation.benchmarks.values import Case
from owlcap.evaluation.run import plan_eval_captions, read_captions
from owlcap.evaluation.saved import read_groups


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_captions_are_read_by_id_and_blank_lines_do_not_count(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": "a", "caption": "one"}', "", '{"id": "b", "caption": "two", "extra": 1}')
    assert read_captions(path) == {"a": "one", "b": "two"}


def test_an_id_that_is_a_number_is_taken_as_text_by_every_reader(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": 1, "caption": "A man waves.", "reference": "A man waves."}')
    assert read_captions(path) == {"1": "A man waves."}
    assert read_texts(path, [Case("1", "", "1", "", "", "1")]) == {"1": "A man waves."}
    assert [group.sample.id for group in read_groups([path])] == ["1"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"id": "b", "caption"', "broken JSON"),
        ("[" * 3000, "broken JSON"),
        ('["b", "two"]', "no JSON object"),
        ('{"id": 7.5, "caption": "two"}', "needs an id and a caption"),
        ('{"id": true, "caption": "two"}', "needs an id and a caption"),
        ('{"id": "b"}', "needs an id and a caption"),
        ('{"id": "a", "caption": "again"}', "the id 'a' occurs twice"),
    ],
)
def test_a_broken_row_is_named_with_file_and_line(tmp_path: Path, line: str, what: str) -> None:
    path = write(tmp_path, '{"id": "a", "caption": "one"}', line)
    with pytest.raises(DataError, match=what) as error:
        read_captions(path)
    assert error.value.where == f"{path}:2"


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        read_captions(write(tmp_path, ""))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_captions(path)


@pytest.mark.parametrize(
    ("source", "counts"),
    [
        ("captions.jsonl", "1 rows, 1 captions: at most 8 judge calls"),  # 4 of the run's judge, 4 of the held-out one
        ("http://127.0.0.1:9/v1", "2 rows, 2 captions: at most 16 judge calls"),
    ],
)
def test_a_plan_counts_the_calls_of_every_judge(tmp_path: Path, source: str, counts: str) -> None:
    run = load_run(
        "toy_grpo",
        [
            "data.reference=reference",
            "rewards.judge.kind=openai",
            "rewards.judge.model=m",
            "rewards.monitors.held_out_judge.kind=openai",
            "rewards.monitors.held_out_judge.model=n",
            "rewards.monitors.held_out_share=1",
        ],
    )
    assert isinstance(run, RlRun)
    data = tmp_path / "data.jsonl"
    rows = [
        {
            "id": id_,
            "videos": [f"{id_}.mp4"],
            "messages": [
                {"role": "user", "content": "<video>What happens?"},
                {"role": "assistant", "content": "A man waves."},
            ],
        }
        for id_ in "ab"
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    captions = write(tmp_path, '{"id": "b", "caption": "A man runs."}')
    given = captions if source == "captions.jsonl" else source
    assert plan_eval_captions(given, data, config=run).startswith(counts)
