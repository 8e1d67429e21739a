"""Rows that are in two places: duplicates in a file, and leaks between splits or from a benchmark.

Rows are compared by id, by the content of their video file, and by their caption without case and punctuation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from owlcap.config import DataSection
from owlcap.data.rows import scan_rows
from owlcap.data.text_file import parse_json, skip_mark
from owlcap.errors import DataError
from owlcap.types import Sample

MIN_CAPTION_WORDS = 8  # shorter captions are equal by chance
VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
BLOCK = 2**20  # bytes read at a time
_WORD = re.compile(r"\w+")


@dataclass(slots=True)
class Gaps:
    """Bad rows that cannot be compared, or not by everything."""

    num_partly: int = 0  # by id and video alone
    num_unread: int = 0

    def __add__(self, other: Gaps) -> Gaps:
        return Gaps(self.num_partly + other.num_partly, self.num_unread + other.num_unread)

    def text(self) -> str:
        """What is to be said beside a count of leaks; nothing where there are no gaps."""
        if not self.num_partly + self.num_unread:
            return ""
        told = f"bad rows of both: {self.num_partly:,} compared by id and video alone"
        return told + (f", {self.num_unread:,} NOT COMPARED" if self.num_unread else "")


@dataclass(slots=True)
class Marks:
    """What a set of rows is recognised by; each mark with where it was first seen."""

    name: str
    ids: dict[str, str] = field(default_factory=dict)
    videos: dict[bytes, str] = field(default_factory=dict)  # hashes of files
    captions: dict[bytes, str] = field(default_factory=dict)  # hashes of normalised texts
    num_rows: int = 0
    gaps: Gaps = field(default_factory=Gaps)

    def add(self, where: str, ids: Iterable[str], captions: Iterable[str], video: Path | None) -> None:
        """Note one row; marks that are no evidence (bare numbers, short captions) are left out."""
        self.num_rows += 1
        for name in ids:
            if not name.isdecimal():
                self.ids.setdefault(name, where)
        for caption in captions:
            if (mark := caption_mark(caption)) is not None:
                self.captions.setdefault(mark, where)
        if video is not None and (content := file_mark(video)) is not None:
            self.videos.setdefault(content, where)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Rows of a data set that are also in another."""

    name: str  # of the other
    num_rows: int  # of the other
    by_id: tuple[str, ...]  # "file:line is other:line", one a row
    by_video: tuple[str, ...]
    by_caption: tuple[str, ...]
    gaps: Gaps  # of both

    @property
    def count(self) -> int:
        """Marks in common."""
        return len(self.by_id) + len(self.by_video) + len(self.by_caption)


def caption_mark(caption: str) -> bytes | None:
    """Hash of a caption's words; None where it has too few to be told from another by chance."""
    words = _WORD.findall(caption.casefold())
    if len(words) < MIN_CAPTION_WORDS:
        return None
    return hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest()


def file_mark(path: Path) -> bytes | None:
    """Hash of a file's content; None where it cannot be read (which is told elsewhere)."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()


def marks_of_rows(path: Path) -> Marks:
    """Marks of a JSONL of ours.

    Raises:
        DataError: the file cannot be read.
    """
    marks = Marks(path.name)
    for number, _, row in scan_to_compare(path, None, marks.gaps):
        if row is not None:
            marks.add(f"{path}:{number}", row_ids(row), {row.caption, row.reference}, Path(row.video))
    return marks


def scan_to_compare(
    path: Path, data: DataSection | None, gaps: Gaps
) -> Iterator[tuple[int, Sample | DataError, Sample | None]]:
    """Each row's line number, the row as `scan_rows` has it, and what can be compared of it, counted in `gaps`.

    Raises:
        DataError: the file cannot be read, or has no rows.
    """
    clips = scan_rows(path, data, clips_only=True)
    for (number, sample), (_, clip) in zip(scan_rows(path, data), clips, strict=True):
        if isinstance(sample, Sample):
            yield number, sample, sample
        elif isinstance(clip, Sample):
            gaps.num_partly += 1
            yield number, sample, clip
        else:
            gaps.num_unread += 1
            yield number, sample, None


def marks_of_benchmark(path: Path) -> Marks:
    """Marks of a benchmark: its annotation file (DREAM-1K, VDC, HMI-Bench, or rows of ours), or a folder of videos.

    Raises:
        DataError: nothing in it can be recognised.
    """
    marks = Marks(path.name)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in VIDEO_ENDINGS:
                marks.add(str(file), [file.stem], (), file)
    else:
        for where, row in _objects(path):
            ids, captions, video = _benchmark_row(row)
            if ids or captions or video:
                marks.add(where, ids, captions, path.parent / video if video else None)
    if not marks.num_rows:
        raise DataError(
            "No video or annotation of a benchmark is in this.",
            where=str(path),
            allowed="DREAM-1k.jsonl, VDC's or HMI-Bench's JSON, a JSONL of ours, or a folder of videos",
            cure="check the path given to --benchmark",
        )
    return marks


def row_ids(sample: Sample) -> dict[str, str]:
    """What a row is called, with what that is. A video's name is compared too, where it is longer than a number."""
    return {Path(sample.video).stem: "its video's name", sample.id: "its id"}


def _objects(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Objects of JSON lines, a JSON list, or one object, each with its place."""
    try:
        with path.open("rb") as file:
            skip_mark(file, path)
            text = file.read().decode("utf-8")
        try:
            whole = parse_json(text)
        except ValueError:
            for number, line in enumerate(text.splitlines(), start=1):
                if line.strip():
                    yield f"{path}:{number}", parse_json(line)
            return
    except (OSError, ValueError) as error:
        raise DataError(f"The benchmark's file cannot be read: {error}.", where=str(path)) from error
    listed = whole if isinstance(whole, list) else [whole]
    for number, row in enumerate(listed, start=1):
        if isinstance(row, dict):
            yield f"{path}: row {number}", row


def _benchmark_row(row: Mapping[str, Any]) -> tuple[set[str], set[str], str | None]:
    """Ids, captions and video path of a benchmark's row."""
    ids: set[str] = {str(row[key]) for key in ("id", "video_id", "vid") if isinstance(row.get(key), str | int)}
    captions = {row[key] for key in ("caption", "reference") if isinstance(row.get(key), str)}
    video = row.get("video") if isinstance(row.get("video"), str) else None
    if isinstance(row.get("videos"), list) and row["videos"] and isinstance(row["videos"][0], str):
        video = row["videos"][0]
    for message in row["messages"] if isinstance(row.get("messages"), list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str) and message.get("role") == "assistant":
            captions.add(content)
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("reference"), str):
                captions.add(part["reference"])  # DREAM-1K
    if row and all(isinstance(value, list) and value and isinstance(value[0], dict) for value in row.values()):
        ids |= {str(key) for key in row}  # VDC: {video id: [{question, answer}, ...]}
    if video:
        ids.add(Path(video).stem)
    return ids, captions, video
