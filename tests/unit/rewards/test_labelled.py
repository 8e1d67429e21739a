"""The labelled set that ships with the project, and files like it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from owlcap.errors import DataError
from rewards.labelled import comparisons, read_rows

ROOT = Path(__file__).resolve().parents[3]
ROW = (
    '{"id": "a", "world": "english", "theme": "t", "split": "tuning", "reference": "A dog runs.", "candidates": [%s]}\n'
)


def test_the_files_are_what_the_script_writes() -> None:
    command = [sys.executable, "tools/make_labelled_set.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


def test_at_least_60_english_references_and_half_of_them_held_out() -> None:
    splits = [row.split for row in read_rows() if row.world == "english"]
    assert len(splits) >= 60
    assert splits.count("held_out") * 2 == len(splits)


def test_every_row_ranks_its_paraphrase_first_and_tries_every_addition() -> None:
    for row in read_rows():
        kinds = {pair.kind for pair in comparisons(row)}
        assert {"paraphrase over off topic", "gibberish must not gain", "injection must not gain"} <= kinds
        assert {"padding must not gain", "repetition must not gain"} <= kinds


def test_candidates_of_one_row_all_differ() -> None:
    for row in read_rows():
        captions = [candidate.caption for candidate in row.candidates]
        assert len(set(captions)) == len(captions), row.id


def test_a_broken_line_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(ROW % "" + '{"id": "b"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="not a labelled row") as caught:
        read_rows(file)
    assert caught.value.where == f"{file}:2"


@pytest.mark.parametrize(
    "candidate",
    ['{"kind": "k", "caption": "c"}', '{"kind": "k", "caption": "c", "built_on": "missing"}'],
)
def test_a_candidate_without_a_place_in_the_order_is_refused(tmp_path: Path, candidate: str) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(ROW % candidate, encoding="utf-8")
    with pytest.raises(DataError, match="the candidate"):
        read_rows(file)
