"""The clips that a pipeline works on: rows of any JSONL that name a video, or a folder of videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owlcap.data.formats.reading import Found, Problem, read_file
from owlcap.data.overlap import VIDEO_ENDINGS
from owlcap.errors import DataError
from owlcap.types import Sample


@dataclass(frozen=True, slots=True)
class Clip:
    """A video or a part of one, and what is known about it already."""

    id: str
    video: str
    start_s: float | None = None
    end_s: float | None = None
    caption: str = ""  # of the source, where it has one

    @property
    def sample(self) -> Sample:
        """For the decoder."""
        return Sample(self.id, self.video, "", "", "", start_s=self.start_s, end_s=self.end_s)


def read_clips(source: Path, video_root: Path | None = None) -> list[Clip]:
    """Clips of a folder of videos, or of a JSONL or parquet whose rows have `video` or `videos`.

    Raises:
        DataError: nothing there, a bad row, or an id that is used twice: a pipeline keeps its place by the id.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS)
        clips = [Clip(str(path.relative_to(source).with_suffix("")), _resolved(path)) for path in files]
    else:
        clips = [_clip(found, source, video_root) for found in read_file(source)]
    if not clips:
        raise DataError("There are no clips.", where=str(source), allowed="a folder of videos, or rows with `video`")
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise DataError(
                f"The id {clip.id!r} is used twice.", where=str(source), cure="rename one; owlcap data check finds all"
            )
        seen.add(clip.id)
    return clips


def _clip(found: Found | Problem, source: Path, video_root: Path | None) -> Clip:
    if isinstance(found, Problem):
        raise DataError(
            f"A row cannot be read: {found.what}", where=found.where, cure="mend it, or see owlcap data import"
        )
    row = found.row
    listed = row.get("videos")
    video = listed[0] if isinstance(listed, list) and listed else row.get("video")
    if not isinstance(video, str):
        raise DataError("The row names no video.", where=found.where, allowed='"video": path, or "videos": [path]')
    path = _resolved((video_root or source.parent) / video)
    name = row.get("id", Path(video).stem)
    return Clip(str(name), path, _seconds(row, "start_s"), _seconds(row, "end_s"), _caption(row))


def _resolved(path: Path) -> str:
    """One spelling, by which records are found again; a video that is a link itself keeps its own name."""
    return str(path.parent.resolve() / path.name)


def _seconds(row: Any, key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _caption(row: Any) -> str:
    if isinstance(row.get("caption"), str):
        return row["caption"]
    messages = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    said = last.get("content") if last.get("role") == "assistant" else None
    return said if isinstance(said, str) else ""
