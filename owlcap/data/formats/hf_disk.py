"""Hugging Face data sets on disk (`save_to_disk`): rows as Arrow stores them, so that no video is decoded.

A column of type Video is {"bytes", "path"}. The rows are then of one of the other formats, or have a video and a
caption in columns of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from owlcap.data.formats.reading import ROWS_AT_ONCE, Found
from owlcap.data.formats.turns import PLAIN_CAPTION, BadRow, Turns, one_video, own_keys, row_id
from owlcap.errors import ConfigError, DataError

STATE, SPLITS = "state.json", "dataset_dict.json"
VIDEO_COLUMNS = ("video", "videos", "video_path", "mp4")
CAPTION_COLUMNS = ("caption", "text", "txt", "answer")
QUESTION_COLUMNS = ("question", "prompt")


def is_data_set(folder: Path) -> str | None:
    """Evidence that a folder is one, or None."""
    for name in (STATE, SPLITS):
        if (folder / name).is_file():
            return f"the folder holds {name}"
    return None


def read_folder(folder: Path) -> Iterator[Found]:
    """Rows of one split.

    Raises:
        DataError: several splits, or a data set that cannot be opened.
        ConfigError: the package datasets is not installed.
    """
    if (folder / SPLITS).is_file():
        splits = sorted(path.name for path in folder.iterdir() if (path / STATE).is_file())
        raise DataError(
            "The data set has splits, and training on all of them would leak.",
            where=str(folder),
            allowed=", ".join(splits),
            cure=f"import one of them: owlcap data import {folder}/{splits[0] if splits else 'train'} OUT",
        )
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise ConfigError(
            "the package datasets is not installed", cure="install owlcap's extra `data`: pip install 'owlcap[data]'"
        ) from error
    try:
        stored: Any = load_from_disk(str(folder))
        number = 0
        for table in stored.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
            for row in table.to_pylist():
                number += 1
                yield Found(f"{folder}: row {number}", row)
    except (OSError, ValueError) as error:
        raise DataError(f"The data set cannot be opened: {error}.", where=str(folder)) from error


def fits(row: Mapping[str, Any]) -> str | None:
    """Evidence that a row has a video and a caption in columns of their own, or None."""
    video, caption = _column(row, VIDEO_COLUMNS), _column(row, CAPTION_COLUMNS)
    return f"columns {video} and {caption}" if video and caption else None


def convert(row: Mapping[str, Any]) -> Turns:
    """The row's caption, with its question where it has one.

    Raises:
        BadRow: with the reason.
    """
    video, caption, asked = (_column(row, names) for names in (VIDEO_COLUMNS, CAPTION_COLUMNS, QUESTION_COLUMNS))
    if video is None or caption is None or not isinstance(row[caption], str):
        columns = ", ".join(VIDEO_COLUMNS), ", ".join(CAPTION_COLUMNS)
        raise BadRow("messages", f"the row has no caption and video; allowed: one of {columns[0]} and of {columns[1]}")
    question = row[asked] if asked and isinstance(row[asked], str) else PLAIN_CAPTION
    return Turns(((question, row[caption]),), one_video(row, video), row_id(row), extra=own_keys(row))


def _column(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)
