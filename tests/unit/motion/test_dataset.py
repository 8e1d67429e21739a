"""The data file around the extraction: which rows are clips, and which get overlays. No Ray runs here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from motion.cache import MotionRecord
from motion.dataset import ExtractReport, read_clips, write_with_overlays
from motion.extract import Extracted
from owlcap.errors import DataError

ASKED = {"role": "user", "content": "Describe."}


def write(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def row(id_: str, **more: object) -> dict[str, object]:
    return {"id": id_, "videos": [f"{id_}.mp4"], **more}


def test_rows_need_neither_captions_nor_questions(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", row("a", messages=[ASKED]), row("b", start_s=1, end_s=2))
    clips, bad = read_clips(data)
    assert bad == []
    assert [(clip.id, clip.video, clip.start_s, clip.end_s) for clip in clips.values()] == [
        ("a", str(tmp_path / "a.mp4"), None, None),
        ("b", str(tmp_path / "b.mp4"), 1.0, 2.0),
    ]


def test_a_bad_row_is_a_failure_that_names_its_line(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", row("a"), "{broken", row("c"), {"id": "d"}, row("a"))
    clips, bad = read_clips(data)
    assert {number: clip.id for number, clip in clips.items()} == {1: "a", 3: "c"}
    assert [(failure.sample.id, failure.error) for failure in bad] == [
        (f"rows.jsonl:{number}", "DataError") for number in (2, 4, 5)
    ]
    assert "not JSON" in bad[0].reason
    assert ExtractReport({}).with_failures(bad).failures == bad


@pytest.mark.parametrize(("lines", "what"), [((), "no rows"), (("{broken",), "not JSON")])
def test_a_file_without_one_good_row_is_an_error(tmp_path: Path, lines: tuple[str, ...], what: str) -> None:
    with pytest.raises(DataError, match=what):
        read_clips(write(tmp_path / "rows.jsonl", *lines))


def test_rows_keep_their_overlays_when_others_are_bad(tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", "{broken", "", row("b", note="two\u2028lines"), row("c"))
    clips, bad = read_clips(data)
    record = MotionRecord(
        video="b.mp4",
        source="toy",
        layout="coco17",
        num_frames=4,
        fps=8.0,
        frame_indices=(0, 2),
        num_people=(1, 1),
        most_people=1,
        present_share=1.0,
        drawn=(True, True),
        error_px=(0.5, 0.5),
        height=28,
        width=28,
    )
    report = ExtractReport({"b": Extracted(clips[3], tmp_path / "entry", record), "c": bad[0]})
    write_with_overlays(data, report, clips, tmp_path / "out.jsonl")
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().split(b"\n") if line]
    assert [one["id"] for one in written] == ["b", "c"]
    assert written[0]["note"] == "two\u2028lines"
    assert [Path(path).name for path in written[0]["overlays"]] == ["overlay-0.png", "overlay-1.png"]
    assert "overlays" not in written[1]
