"""`owlcap data check`: every row and video is opened, prompts are counted as the policy gets them, leaks are found."""

import json
import shutil
from pathlib import Path

import pytest

from owlcap.config import DataSection, VideoSection
from owlcap.data.checking import CheckReport, check_data
from owlcap.data.overlap import marks_of_benchmark
from owlcap.data.rows import read_rows
from owlcap.data.toy import make_toy_world
from owlcap.errors import DataError
from owlcap.models.load import load_processor
from owlcap.models.tiny import make_tiny_model

VIDEO = VideoSection(fps=6, min_frames=12, max_frames=12, min_pixels=3136, max_pixels=3136)
LONG = "A girl in a red shirt waves with her left hand, then she sits down."


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "world"
    return make_toy_world(folder, num_train=3, num_validation=1, num_test=1, seed=0).root


@pytest.fixture
def data(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world, tmp_path / "world")
    return tmp_path / "world" / "train.jsonl"


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def put(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def checked(data: Path, **options) -> CheckReport:
    return check_data(data, DataSection(train=str(data), max_prompt_tokens=60), VIDEO, **options)


def test_clean_rows_are_counted(data: Path) -> None:
    report = checked(data, against=[data.parent / "test.jsonl"])

    assert report.is_clean
    assert report.num_rows == 3
    assert (report.frames.least, report.video_tokens.most) == (12, 6 * 2 * 2)
    assert "nothing wrong" in report.text()


def test_prompts_are_counted_as_the_policy_gets_them(data: Path, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", [sample.prompt for sample in read_rows(data)], seed=0)

    report = checked(data, processor=load_processor(folder))

    assert report.video_tokens.total == 3 * 24
    assert report.prompt_tokens.total == report.video_tokens.total + report.text_tokens.total
    assert "<|video_pad|> x 24" in report.first_prompt


def test_a_prompt_above_the_limit_is_a_problem(data: Path, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", [sample.prompt for sample in read_rows(data)], seed=0)
    section = DataSection(train=str(data), max_prompt_tokens=30)

    report = check_data(data, section, VIDEO, processor=load_processor(folder))

    assert report.problems == {"prompts too long": 3}


def test_bad_rows_and_videos_are_named_by_line(data: Path) -> None:
    rows = rows_of(data)
    (data.parent / rows[1]["videos"][0]).write_bytes(b"not a video")
    put(data, [*rows, {**rows[0], "id": "gone", "videos": ["gone.mp4"]}])
    with data.open("a") as file:
        file.write(json.dumps(rows[0]) + "\n{broken\n")

    report = checked(data)

    assert dict(report.problems) == {
        "duplicate ids": 1,
        "broken JSON": 1,
        "unreadable videos": 1,
        "missing videos": 1,
    }
    assert report.examples["unreadable videos"][0].startswith(f"{data}:2")
    assert report.examples["missing videos"][0].startswith(f"{data}:4")
    assert report.examples["duplicate ids"][0].startswith(f"{data}:5")


def test_the_same_video_under_another_name_is_a_duplicate(data: Path) -> None:
    rows = rows_of(data)
    shutil.copy(data.parent / rows[0]["videos"][0], data.parent / "copy.mp4")
    put(data, [*rows, {**rows[0], "id": "copy", "videos": ["copy.mp4"]}])

    assert checked(data).examples["same video and question"] == [f"{data}:4: as line 1"]


def test_another_question_about_a_video_is_no_duplicate(data: Path) -> None:
    rows = rows_of(data)
    asked = [{"role": "user", "content": "Who is it?"}, {"role": "assistant", "content": "A girl."}]
    put(data, [*rows, {**rows[0], "id": "asked", "messages": asked}])

    assert checked(data).is_clean


def test_a_caption_of_two_videos_is_told(data: Path) -> None:
    rows = rows_of(data)
    for row, said in zip(rows, (LONG, LONG.upper().replace(",", " "), "Someone else."), strict=True):
        row["messages"][1]["content"] = said

    assert checked(put(data, rows)).examples["same caption, other video"] == [f"{data}:2: as line 1"]


def test_a_leak_between_splits_is_found_by_id_content_and_caption(data: Path) -> None:
    rows = rows_of(data)
    shutil.copy(data.parent / rows[1]["videos"][0], data.parent / "copy.mp4")
    by_id = {**rows[0], "videos": ["videos/test-000000.mp4"]}
    by_video = {**rows[1], "id": "copy", "videos": ["copy.mp4"], "reference": "Other."}
    by_video["messages"] = [rows[1]["messages"][0], {"role": "assistant", "content": "Other."}]
    by_caption = {**rows[2], "id": "told", "videos": ["videos/test-000000.mp4"]}
    test = put(data.parent / "leaky.jsonl", [by_id, by_video, by_caption])

    (overlap,) = checked(data, against=[test]).overlaps

    assert [one.partition(" is ")[0] for one in overlap.by_id] == [f"{data}:1"]
    assert [one.partition(" is ")[0] for one in overlap.by_video] == [f"{data}:2"]
    assert f"{data}:3 is {test}:3" in overlap.by_caption


def test_bad_rows_are_compared_by_id_and_video_and_what_cannot_be_is_said(data: Path) -> None:
    rows = rows_of(data)
    put(data, [{**rows[0], "messages": rows[0]["messages"][:1]}, *rows[1:]])
    other = put(data.parent / "other.jsonl", [{**rows[0], "messages": "none"}])
    for file in (data, other):
        with file.open("a") as lines:
            lines.write("{broken\n")

    report = checked(data, against=[other])

    (overlap,) = report.overlaps
    assert (overlap.by_id, overlap.by_video) == ((f"{data}:1 is {other}:1",), (f"{data}:1 is {other}:1",))
    told = "(1 rows; bad rows of both: 2 compared by id and video alone, 2 NOT COMPARED)"
    assert told in report.text()


def test_a_caption_that_is_not_there_is_told_with_the_setting_to_change(data: Path) -> None:
    report = check_data(data, DataSection(train=str(data), reference="full caption"), VIDEO)

    (first, *_) = report.examples["bad rows"]
    assert "has no caption 'full caption'. Allowed: reference, " in first
    assert "Cure: set data.reference to one of these" in first


def test_a_leak_by_the_name_of_the_video_is_told_as_that(data: Path, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    named = tmp_path / "bench" / Path(rows_of(data)[1]["videos"][0]).name
    named.write_bytes(b"another video")
    put(data, [{**row, "id": f"row {number}"} for number, row in enumerate(rows_of(data))])

    report = checked(data, benchmarks=[named.parent])

    assert report.examples["leaks of bench"] == [f"{data}:2: its video's name is that of {named}"]


def test_dream1ks_references_and_vdcs_videos_are_recognised(data: Path, tmp_path: Path) -> None:
    told = {"messages": [{"role": "assistant", "content": [{"reference": LONG, "type": "text"}]}], "idx": 7}
    dream = put(tmp_path / "DREAM-1k.jsonl", [told])
    vdc = put(tmp_path / "vdc.jsonl", [{"train-000001": [{"question": "Who?", "answer": "A girl."}]}])
    rows = rows_of(data)
    rows[0]["messages"][1]["content"] = LONG

    report = checked(put(data, rows), benchmarks=[dream, vdc])

    assert [(len(one.by_id), len(one.by_caption)) for one in report.overlaps] == [(0, 1), (1, 0)]
    assert not report.is_clean


def test_a_folder_of_benchmark_videos_is_compared_by_content(data: Path, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    shutil.copy(data.parent / rows_of(data)[2]["videos"][0], tmp_path / "bench" / "123.mp4")

    (overlap,) = checked(data, benchmarks=[tmp_path / "bench"]).overlaps

    assert overlap.by_video == (f"{data}:3 is {tmp_path / 'bench' / '123.mp4'}",)


def test_a_benchmark_in_which_nothing_is_recognised_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No video or annotation"):
        marks_of_benchmark(put(tmp_path / "x.jsonl", [{"foo": 1}]))


def test_a_check_of_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        checked(put(tmp_path / "empty.jsonl", []))
