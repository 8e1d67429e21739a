"""Our rows for other trainers: read back as those trainers read them."""

import json
from pathlib import Path
from typing import Any

import pytest

from owlcap.config import DataSection
from owlcap.data.exporting import export_data
from owlcap.data.importing import import_data
from owlcap.data.rows import Row, read_rows, write_rows
from owlcap.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "a.mp4").write_bytes(b"video")
    row = Row(
        id="a",
        messages=[{"role": "user", "content": "What happens?"}, {"role": "assistant", "content": "A girl waves."}],
        videos=["a.mp4"],
        captions={"full": "A girl in red waves."},
        keypoints=["a girl waves"],
        start_s=0.5,
    )
    write_rows(tmp_path / "rows.jsonl", [row])
    return tmp_path / "rows.jsonl"


def test_ms_swift_gets_a_marked_question_an_absolute_path_and_a_solution(data: Path) -> None:
    out = data.parent / "swift.jsonl"

    report = export_data(data, out, "swift", DataSection(train=str(data), reference="full"))

    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert report.text() == (
        f"1 rows written to {out}\n"
        "left out: the cut (start_s and end_s are in the file, but ms-swift shows its policy whole videos) of 1 rows"
    )
    assert row["messages"][0] == {"role": "user", "content": "What happens?<video>"}
    assert row["videos"] == [str(data.parent / "a.mp4")]
    assert row["solution"] == "A girl in red waves."


def test_what_ms_swift_gets_comes_back_the_same(data: Path) -> None:
    export_data(data, data.parent / "swift.jsonl", "swift")
    import_data(data.parent / "swift.jsonl", data.parent / "back.jsonl")

    assert read_rows(data.parent / "back.jsonl") == read_rows(data)


def test_verls_own_data_set_reads_the_parquet(data: Path) -> None:
    from datasets import load_dataset
    from verl.utils.dataset.rl_dataset import RLHFDataset

    out = data.parent / "verl.parquet"
    export_data(data, out, "verl")

    example = dict(load_dataset("parquet", data_files=str(out), cache_dir=str(data.parent / "cache"))["train"][0])
    reader: Any = RLHFDataset.__new__(RLHFDataset)
    reader.image_key, reader.video_key, reader.audio_key, reader.processor = "images", "videos", "audios", object()
    (message,) = reader._build_messages(dict(example), key="prompt")
    assert message["content"] == [
        {"type": "text", "text": "What happens?"},
        {"type": "video", "video": str(data.parent / "a.mp4"), "video_start": 0.5, "video_end": None},
    ]
    assert example["reward_model"]["ground_truth"] == "A girl waves."
    assert example["extra_info"]["keypoints"] == ["a girl waves"]


def test_a_bad_row_ends_an_export_and_leaves_no_file(data: Path) -> None:
    with data.open("a") as file:
        file.write("{broken\n")

    with pytest.raises(DataError, match="not JSON"):
        export_data(data, data.parent / "out.parquet", "verl")
    assert not list(data.parent.glob("*out.parquet*"))


def test_an_unknown_export_names_the_known_ones(data: Path) -> None:
    with pytest.raises(DataError) as caught:
        export_data(data, data.parent / "out", "coco")
    assert caught.value.allowed == "swift, verl"


@pytest.mark.parametrize(("format", "ending", "lost"), [("swift", "jsonl", 3), ("verl", "parquet", 2)])
def test_what_a_format_has_no_place_for_is_counted(data: Path, format: str, ending: str, lost: int) -> None:
    row = json.loads(data.read_text())
    more = {"overlays": ["o/0.png"], "facts": [{"text": "shirt=red", "tag": "detail"}]}
    write_rows(data, [row, {**row, "id": "b", **more}, {**row, "id": "c", "overlays": ["o/0.png"]}])  # type: ignore[list-item]

    report = export_data(data, data.parent / f"out.{ending}", format)

    assert len(report.left_out) == lost
    assert "left out: overlays (the motion pathway is owlcap's own) of 2 rows" in report.text()
    assert "left out: facts of 1 rows" in report.text()


@pytest.mark.parametrize(("format", "ending"), [("swift", "parquet"), ("verl", "jsonl")])
def test_an_export_has_the_ending_of_its_format(data: Path, format: str, ending: str) -> None:
    with pytest.raises(DataError, match="does not end in"):
        export_data(data, data.parent / f"out.{ending}", format)


def test_an_export_is_never_written_over_its_data(data: Path) -> None:
    before = data.read_bytes()
    with pytest.raises(DataError, match="is the one that is read"):
        export_data(data, data, "swift")
    assert data.read_bytes() == before


def test_a_file_of_an_earlier_export_to_another_format_is_named(data: Path) -> None:
    export_data(data, data.parent / "train.jsonl", "swift")

    report = export_data(data, data.parent / "train.parquet", "verl")

    assert f"not of this export: {data.parent / 'train.jsonl'} was there before" in report.text()
    assert export_data(data, data.with_suffix(".parquet"), "verl").beside == ()
