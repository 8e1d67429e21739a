"""Rows of a data set: what is read, and one clear error for every bad row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from owlcap.config import DataSection
from owlcap.data.rows import Message, Row, read_rows, write_rows
from owlcap.errors import DataError, VideoError
from owlcap.types import Choice, Fact, Sample


def good_row(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": "a",
        "messages": [
            {"role": "user", "content": "Describe the video.<video>"},
            {"role": "assistant", "content": "A person jumps."},
        ],
        "videos": ["videos/a.mp4"],
        "captions": {"full": "A person in red jumps.", "brief": "Someone jumps."},
    }
    row.update(changes)
    return {key: value for key, value in row.items() if value is not None}


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: dict[str, Any] | str | bytes) -> Path:
        lines = [
            row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode()
            for row in rows
        ]
        path = tmp_path / "rows.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    return write


def test_a_row_becomes_a_sample_with_its_video_beside_the_file(file_of: Callable[..., Path]) -> None:
    facts = [{"text": "shirt=red", "tag": "detail"}, {"text": "action=jump", "tag": "motion"}]
    path = file_of(good_row(facts=facts, start_s=1, end_s=2.5, reference="In red, a person jumps."))

    assert read_rows(path) == [
        Sample(
            id="a",
            video=str(path.parent / "videos/a.mp4"),
            prompt="Describe the video.",
            caption="A person jumps.",
            reference="In red, a person jumps.",
            facts=(Fact("shirt=red", "detail"), Fact("action=jump", "motion")),
            start_s=1.0,
            end_s=2.5,
        )
    ]


def test_questions_and_keypoints_of_a_row_become_the_samples(file_of: Callable[..., Path]) -> None:
    question = {"question": " Who jumps? ", "options": ["a dog", " a person "], "answer": "a person"}
    (sample,) = read_rows(file_of(good_row(questions=[question], keypoints=["a person jumps "])))
    assert sample.questions == (Choice("Who jumps?", ("a dog", "a person"), "a person"),)
    assert sample.keypoints == ("a person jumps",)


def test_overlays_are_files_from_the_rows_folder_on(file_of: Callable[..., Path]) -> None:
    path = file_of(good_row(overlays=["overlays/0.png", "/elsewhere/1.png"]))
    (sample,) = read_rows(path)
    assert sample.overlays == (str(path.parent / "overlays" / "0.png"), "/elsewhere/1.png")


def test_an_absolute_video_path_stays(file_of: Callable[..., Path]) -> None:
    assert read_rows(file_of(good_row(videos=["/films/a.mp4"])))[0].video == "/films/a.mp4"


def test_blank_lines_are_skipped_and_a_missing_id_is_made_of_the_line(file_of: Callable[..., Path]) -> None:
    assert [sample.id for sample in read_rows(file_of("", good_row(id=None), "  "))] == ["rows-000002"]


def test_the_data_section_chooses_target_reference_and_prompt(file_of: Callable[..., Path]) -> None:
    data = DataSection(train="", target="brief", reference="full", prompt="What is seen?")
    sample = read_rows(file_of(good_row()), data)[0]
    assert (sample.caption, sample.reference, sample.prompt) == (
        "Someone jumps.",
        "A person in red jumps.",
        "What is seen?",
    )


def test_the_reference_falls_back_to_the_target(file_of: Callable[..., Path]) -> None:
    sample = read_rows(file_of(good_row()), DataSection(train="", target="full"))[0]
    assert sample.reference == sample.caption == "A person in red jumps."


def test_a_caption_named_reference_is_the_reference(file_of: Callable[..., Path]) -> None:
    row = good_row(captions={"reference": "A person in red jumps."})
    assert read_rows(file_of(row))[0].reference == "A person in red jumps."


def test_a_row_without_answer_serves_when_the_target_is_a_named_caption(file_of: Callable[..., Path]) -> None:
    row = good_row(messages=[{"role": "user", "content": "Describe."}])
    assert read_rows(file_of(row), DataSection(train="", target="full"))[0].caption == "A person in red jumps."


USER = {"role": "user", "content": "<video>Describe."}
ANSWER = {"role": "assistant", "content": "A person jumps."}


def asking(**changes: Any) -> dict[str, Any]:
    question = {"question": "Who jumps?", "options": ["a dog", "a person"], "answer": "a person"}
    return good_row(id="b", questions=[question, {**question, **changes}])


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "broken JSON": ('{"id": "b", "messages": [', "not JSON"),
    "nested too deep": ('{"id": "b", "messages": ' + "[" * 3000 + "]" * 3000 + "}", "nested too deep"),
    "cut off inside a text": ('{"id": "b", "messages": [{"role": "us', "ends in the middle of a text (column 38)"),
    "a number of 5000 digits": ('{"id": ' + "1" * 5000 + "}", "not JSON"),
    "not an object": ("[1, 2]", "JSON list"),
    "not UTF-8": (b'{"id": "\xff"}', "not UTF-8 (byte 8"),
    "no videos key": (good_row(id="b", videos=None), "no videos"),
    "empty videos": (good_row(id="b", videos=[]), "no videos"),
    "two videos": (good_row(id="b", videos=["a.mp4", "b.mp4"]), "videos ['a.mp4', 'b.mp4']"),
    "videos is a text": (good_row(id="b", videos="a.mp4"), "videos 'a.mp4'"),
    "blank video": (good_row(id="b", videos=[" "]), "videos [' ']"),
    "zero byte in the path": (good_row(id="b", videos=["a\0.mp4"]), "zero byte"),
    "no messages": (good_row(id="b", messages=None), "no messages"),
    "no assistant message": (good_row(id="b", messages=[USER]), "no assistant message"),
    "message without content": (good_row(id="b", messages=[{"role": "user"}]), "{'role': 'user'}"),
    "message is a text": (good_row(id="b", messages=["hello"]), "'hello'"),
    "system message": (good_row(id="b", messages=[{"role": "system", "content": "x"}, USER, ANSWER]), "'system'"),
    "two turns": (good_row(id="b", messages=[USER, ANSWER, USER, ANSWER]), "'user', 'assistant', 'user'"),
    "two video marks": (
        good_row(id="b", messages=[{"role": "user", "content": "<video><video>Go."}, ANSWER]),
        "more than one video",
    ),
    "no question": (good_row(id="b", messages=[{"role": "user", "content": "<video>"}, ANSWER]), "asks nothing"),
    "zero-length caption": (
        good_row(id="b", messages=[USER, {"role": "assistant", "content": " \n"}]),
        "assistant message has zero length",
    ),
    "zero-length reference": (good_row(id="b", reference=""), "reference has zero length"),
    "captions is a list": (good_row(id="b", captions=["x"]), "captions are not an object"),
    "duplicate id": (good_row(), "'a' is used twice"),
    "id is a list": (good_row(id=[]), "id is []"),
    "facts is a text": (good_row(id="b", facts="shirt=red"), "facts are not a list"),
    "fact without tag": (good_row(id="b", facts=[{"text": "shirt=red"}]), "{'text': 'shirt=red'}"),
    "fact with another tag": (good_row(id="b", facts=[{"text": "x", "tag": "sound"}]), "'sound'"),
    "questions is an object": (good_row(id="b", questions={}), "questions are not a list"),
    "question is a text": (good_row(id="b", questions=["Who jumps?"]), "questions[0] is 'Who jumps?'"),
    "blank question": (asking(question=" "), "questions[1].question is ' '"),
    "options is a text": (asking(options="a person"), "questions[1].options are 'a person'"),
    "one option": (asking(options=["a person"]), "questions[1].options are ['a person']"),
    "more options than letters": (asking(options=[str(i) for i in range(27)]), "questions[1].options are ['0'"),
    "option is a number": (asking(options=["a person", 3]), "questions[1].options[1] is 3"),
    "an option twice": (asking(options=["a person", "a person "]), "questions[1].options have 'a person' twice"),
    "no answer": (asking(answer=None), "questions[1].answer is None"),
    "answer is a letter": (asking(answer="B"), "questions[1].answer is 'B'"),
    "keypoints is a text": (good_row(id="b", keypoints="jumps"), "keypoints are not a list"),
    "blank keypoint": (good_row(id="b", keypoints=["a person jumps", ""]), "keypoints[1] is ''"),
    "overlays are a text": (good_row(id="b", overlays="0.png"), "overlays are not a list"),
    "blank overlay": (good_row(id="b", overlays=["0.png", " "]), "overlays[1] is ' '"),
    "a keypoint twice": (good_row(id="b", keypoints=["jumps", "jumps"]), "keypoints have 'jumps' twice"),
    "start is a text": (good_row(id="b", start_s="0:01"), "start_s is '0:01'"),
    "start is negative": (good_row(id="b", start_s=-1), "start_s is -1"),
    "end is not a number": (json.dumps(good_row(id="b", end_s=float("nan"))), "end_s is nan"),
    "end before start": (good_row(id="b", start_s=2, end_s=1), "end_s (1.0) is not after its start_s (2.0)"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_by_file_and_line_with_a_cure(file_of: Callable[..., Path], name: str) -> None:
    row, said = BAD_ROWS[name]
    path = file_of(good_row(), row)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert said in caught.value.what
    assert caught.value.where == f"{path}:2"
    assert caught.value.cure


@pytest.mark.parametrize("key", ["target", "reference"])
def test_an_unknown_caption_name_lists_the_known_ones(file_of: Callable[..., Path], key: str) -> None:
    with pytest.raises(DataError, match="no caption 'ful'") as caught:
        read_rows(file_of(good_row()), DataSection.model_validate({"train": "", key: "ful"}))
    assert "full, brief" in str(caught.value.allowed)
    assert f"data.{key}" in str(caught.value.cure)


def test_a_zero_length_named_caption_is_an_error(file_of: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="caption 'full' has zero length"):
        read_rows(file_of(good_row(captions={"full": ""})), DataSection(train="", target="full"))


@pytest.mark.parametrize("lines", [[], [""]])
def test_a_file_without_rows_is_an_error(file_of: Callable[..., Path], lines: list[str]) -> None:
    with pytest.raises(DataError, match="no rows"):
        read_rows(file_of(*lines))


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_rows(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_video_files_are_checked_only_when_asked(file_of: Callable[..., Path]) -> None:
    path = file_of(good_row())
    assert len(read_rows(path)) == 1
    with pytest.raises(VideoError, match="does not exist") as caught:
        read_rows(path, check_files=True)
    assert str(path.parent / "videos/a.mp4") in str(caught.value.where)


CAPTION = "Größe: 5 \u2028 m."  # \u2028 ends a line for some readers, not in JSONL


def row_of(name: str) -> Row:
    messages = [Message(role="user", content="<video>Describe."), Message(role="assistant", content=CAPTION)]
    return Row(id=name, messages=messages, videos=["a.mp4"])


def test_written_rows_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    write_rows(path, [row_of("a"), row_of("b")])
    assert [(sample.id, sample.caption) for sample in read_rows(path)] == [("a", CAPTION), ("b", CAPTION)]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [row_of("a")])

    def failing() -> Any:
        yield row_of("b")
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left on device") as caught:
        write_rows(path, failing())
    assert caught.value.where == str(path)
    assert [sample.id for sample in read_rows(path)] == ["a"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_rows(tmp_path / "file" / "rows.jsonl", [row_of("a")])


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("Describe the video.<video>", "Describe the video."),
        ("Describe the video.", "Describe the video."),
        ("<video>\nDescribe the video.", "<video>\nDescribe the video."),
    ],
)
def test_a_mark_that_is_not_at_the_end_stays_in_the_question(
    file_of: Callable[..., Path], content: str, prompt: str
) -> None:
    row = good_row(messages=[{"role": "user", "content": content}, ANSWER])
    assert read_rows(file_of(row))[0].prompt == prompt
