"""OwlCap's released rows: {"video", "conversations": [{"value": "<video>\\n..."}, {"value": caption}], "start_time"?}.

Source: the released GRPO script. An index JSON names the files: {name: {"annotation": glob, "repeat_time": x}}. As
there, a repeat_time below 1 takes the first lines of each file, and one of 2 takes every line twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Any

from owlcap.data.formats.turns import BadRow, Turns, mark_video, one_video, row_id, times
from owlcap.errors import DataError


def fits(row: Mapping[str, Any]) -> str | None:
    """Evidence that a row is of this format, or None."""
    turns = row.get("conversations")
    if "video" not in row or not isinstance(turns, list) or not turns or not isinstance(turns[0], Mapping):
        return None
    if "from" not in turns[0] and "value" in turns[0]:
        return "conversations with value alone, and one video"
    return "conversations, one video and start_time" if "start_time" in row and "value" in turns[0] else None


def convert(row: Mapping[str, Any]) -> Turns:
    """The row's question and caption: its first two turns, whoever they are said to be from.

    Raises:
        BadRow: with the reason.
    """
    turns = row.get("conversations")
    if (
        not isinstance(turns, list)
        or len(turns) != 2
        or not all(isinstance(turn, Mapping) and isinstance(turn.get("value"), str) for turn in turns)
    ):
        raise BadRow("messages", "conversations is not a list of two {value: text}")
    pairs = ((mark_video(turns[0]["value"]), turns[1]["value"]),)
    return Turns(pairs, one_video(row, "video"), row_id(row), extra=times(row))


def is_index(value: object) -> bool:
    """Whether a JSON file is an index."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(entry, Mapping) and "annotation" in entry for entry in value.values())
    )


def indexed_files(path: Path, index: Mapping[str, Mapping[str, Any]]) -> list[tuple[Path, float]]:
    """Files of an index with their repeat_time.

    Raises:
        DataError: an entry that names no file, or a repeat_time that is no number.
    """
    found: list[tuple[Path, float]] = []
    for name, entry in index.items():
        repeat = entry.get("repeat_time", 1)
        if isinstance(repeat, bool) or not isinstance(repeat, int | float) or repeat <= 0:
            raise DataError(
                f"The repeat_time of {name!r} is {repeat!r}.", where=str(path), allowed="a number above 0, e.g. 1"
            )
        pattern = str(path.parent / str(entry["annotation"]))
        files = sorted(glob(pattern))
        if not files:
            raise DataError(
                f"The annotation of {name!r} names no file that is here: {pattern}",
                where=str(path),
                cure="mend the path in the index; * stands for any name",
            )
        found += [(Path(file), float(repeat)) for file in files]
    return found
