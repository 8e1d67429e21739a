"""Rows of a data set: JSONL in the messages + videos form that ms-swift and TRL users know.

One object a line:

    {"id": "train-000001",
     "messages": [{"role": "user", "content": "Describe the video.<video>"}, {"role": "assistant", "content": "..."}],
     "videos": ["videos/train-000001.mp4"],
     "captions": {"full": "...", "brief": "..."},      optional: other captions, by name
     "reference": "...",                               optional: what rewards compare with
     "facts": [{"text": "shirt=red", "tag": "detail"}],  optional
     "questions": [{"question": "Who waves?", "options": ["a man", "a girl"], "answer": "a girl"}],  optional
     "keypoints": ["a girl waves", ...],               optional: what a good caption conveys
     "overlays": ["overlays/train-000001/0.png", ...], optional: key frames with a body mesh, for the motion pathway
     "start_s": 0.0, "end_s": 2.0}                     optional: the part of the video that is meant

The policy sees the video where `<video>` stands in the question, or after the question where it stands nowhere.
Every fault is a DataError that names file:line and a cure.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NotRequired, TypedDict

from owlcap.config import DataSection
from owlcap.data.row import parse_row
from owlcap.data.text_file import no_rows, skip_mark
from owlcap.errors import DataError
from owlcap.types import Sample, Tag


class Message(TypedDict):
    """One turn; `<video>` in a user turn marks the video."""

    role: str
    content: str


class FactRow(TypedDict):
    """A Fact as JSON."""

    text: str
    tag: Tag


class QuestionRow(TypedDict):
    """A Choice as JSON."""

    question: str
    options: list[str]
    answer: str


class Row(TypedDict):
    """One line of the file."""

    id: str
    messages: list[Message]
    videos: list[str]
    captions: NotRequired[dict[str, str]]
    reference: NotRequired[str]
    facts: NotRequired[list[FactRow]]
    questions: NotRequired[list[QuestionRow]]
    keypoints: NotRequired[list[str]]
    overlays: NotRequired[list[str]]
    start_s: NotRequired[float]
    end_s: NotRequired[float]


def read_rows(path: str | Path, data: DataSection | None = None, *, check_files: bool = False) -> list[Sample]:
    """Read a JSONL file into samples; relative video paths resolve against the file's folder.

    Args:
        path: the JSONL file.
        data: which caption is the target, which the reference, and a prompt that replaces each row's own.
        check_files: also check that every video file exists (a VideoError names the first that does not).

    Raises:
        DataError: the file cannot be read, has no rows, or a row is bad; the error names file:line and the cure.
    """
    samples: list[Sample] = []
    for _, sample in scan_rows(path, data, check_files=check_files):
        if isinstance(sample, DataError):
            raise sample
        samples.append(sample)
    return samples


def scan_rows(
    path: str | Path, data: DataSection | None = None, *, check_files: bool = False, clips_only: bool = False
) -> Iterator[tuple[int, Sample | DataError]]:
    """Each row's line number with its sample, or with the error of a bad one. One row is in memory at a time.

    Args:
        clips_only: look at ids, videos and times alone; rows may lack questions and captions, and samples do.

    Raises:
        DataError: the file cannot be read, or has no rows.
    """
    path = Path(path)
    data = data or DataSection(train=str(path))
    lines_of_ids: dict[str, int] = {}
    try:
        num_rows = 0
        with path.open("rb") as file:
            skip_mark(file, path)
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                num_rows += 1
                try:
                    sample = parse_row(line, path, number, data, check_files=check_files, clips_only=clips_only)
                    if sample.id in lines_of_ids:
                        raise DataError(
                            f"The id {sample.id!r} is used twice.",
                            where=f"{path}:{number}",
                            allowed=f"ids that are unique in the file; line {lines_of_ids[sample.id]} has this one",
                            cure="rename or delete one of the two rows",
                        )
                except DataError as error:
                    yield number, error
                    continue
                lines_of_ids[sample.id] = number
                yield number, sample
        if not num_rows:
            raise no_rows(path)
    except OSError as error:
        raise DataError(
            f"The data file cannot be read: {error.strerror}.",
            where=str(path),
            cure="check the path (data.train, data.validation, evaluation.data), or make a toy set: owlcap data toy",
        ) from error


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL, all or nothing: to a temporary file beside `path`, flushed to disk, then renamed.

    Raises:
        DataError: the folder cannot be written, or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise DataError(
            f"The data file cannot be written: {error.strerror}.",
            where=str(path),
            cure="free some space or choose a folder that can be written",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
