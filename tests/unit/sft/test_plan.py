"""The rows of an SFT run: all captions, and a share of the questions beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.config import DataSection, SftSection
from owlcap.errors import DataError
from sft.plan import read_samples


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    lines = [
        {
            "id": f"{path.stem}-{i}",
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "videos": ["clip.mp4"],
            "captions": {"full": f"full {answer}"},
        }
        for i, (question, answer) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> DataSection:
    """Ten captions, whose target is another one than the message."""
    train = write(tmp_path / "train.jsonl", [("Describe.", f"caption {i}") for i in range(10)])
    return DataSection(train=train, target="full", prompt="Say what you see.")


@pytest.fixture
def qa(tmp_path: Path) -> str:
    """Fifty questions."""
    return write(tmp_path / "qa.jsonl", [(f"Question {i}?", f"answer {i}") for i in range(50)])


def test_a_fifth_of_the_questions_joins_all_captions(data: DataSection, qa: str) -> None:
    train, _ = read_samples(data, SftSection(qa=qa), seed=0)
    assert [sample.caption for sample in train[:10]] == [f"full caption {i}" for i in range(10)]
    assert len(train) == 10 + 10


def test_a_question_is_asked_and_answered_as_its_row_says(data: DataSection, qa: str) -> None:
    train, _ = read_samples(data, SftSection(qa=qa), seed=0)
    for sample in train[10:]:
        number = sample.id.removeprefix("qa-")
        assert (sample.prompt, sample.caption) == (f"Question {number}?", f"answer {number}")
    assert {sample.prompt for sample in train[:10]} == {"Say what you see."}


def test_the_seed_draws_the_questions(data: DataSection, qa: str) -> None:
    drawn = [tuple(s.id for s in read_samples(data, SftSection(qa=qa), seed)[0][10:]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[2])) == 10


def test_the_share_is_a_setting(data: DataSection, qa: str) -> None:
    assert len(read_samples(data, SftSection(qa=qa, qa_share=1.0), 0)[0]) == 60
    assert len(read_samples(data, SftSection(), 0)[0]) == 10


def test_missing_questions_are_told_by_their_file(data: DataSection, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_samples(data, SftSection(qa=str(tmp_path / "none.jsonl")), 0)
    assert "none.jsonl" in str(caught.value.where)
