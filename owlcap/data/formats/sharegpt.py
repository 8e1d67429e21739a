"""LLaMA-Factory's ShareGPT form, with `videos`.

    {"conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}], "videos": [path], "system"?}

Source: LLaMA-Factory's data/README.md. A dataset_info.json beside the files names them and may rename columns and
tags; `described_files` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owlcap.data.formats.turns import BadRow, Turns, mark_video, one_video, pair_up, row_id, times
from owlcap.errors import DataError

DESCRIPTION = "dataset_info.json"


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of columns and tags; the defaults are LLaMA-Factory's."""

    messages: str = "conversations"
    videos: str = "videos"
    system: str = "system"
    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    system_tag: str = "system"


DEFAULT = Layout()


def fits(row: Mapping[str, Any]) -> str | None:
    """Evidence that a row is of this format, or None."""
    turns = row.get(DEFAULT.messages)
    if isinstance(turns, list) and "videos" in row and _has_tags(turns, DEFAULT):
        return "conversations with from and value, and a list videos"
    return None


def convert(row: Mapping[str, Any], layout: Layout = DEFAULT) -> Turns:
    """The row's questions and answers.

    Raises:
        BadRow: with the reason.
    """
    turns = row.get(layout.messages)
    if not isinstance(turns, list) or not _has_tags(turns, layout):
        raise BadRow(
            "messages", f"{layout.messages} is not a list of {{{layout.role_tag}, {layout.content_tag}}} with text"
        )
    roles: dict[str, str] = {layout.user_tag: "user", layout.assistant_tag: "assistant", layout.system_tag: "system"}
    tags = [(str(turn[layout.role_tag]), str(turn[layout.content_tag])) for turn in turns]
    said = [(roles.get(tag, tag), text) for tag, text in tags]
    system, pairs = pair_up(said)
    if not system and isinstance(row.get(layout.system), str):
        system = row[layout.system].strip()
    asked = tuple((mark_video(question), answer) for question, answer in pairs)
    return Turns(asked, one_video(row, layout.videos), row_id(row), system, times(row))


def described_files(path: Path, description: object) -> list[tuple[Path, Layout]]:
    """Files with videos that a dataset_info.json names, with their layouts.

    Raises:
        DataError: it names none that is here.
    """
    found: list[tuple[Path, Layout]] = []
    for entry in description.values() if isinstance(description, Mapping) else ():
        columns = entry.get("columns", {}) if isinstance(entry, Mapping) else {}
        if not columns.get("videos") or entry.get("formatting") != "sharegpt" or "file_name" not in entry:
            continue
        named = {"messages": DEFAULT.messages, **columns, **entry.get("tags", {})}
        layout = Layout(**{name: named[name] for name in Layout.__dataclass_fields__ if name in named})
        found.append((path.parent / entry["file_name"], layout))
    if not found:
        raise DataError(
            "The description names no file with videos.",
            where=str(path),
            allowed='entries with "formatting": "sharegpt", "file_name", and "videos" under "columns"',
            cure="add the column videos to the entry, or import the data file itself",
        )
    return found


def _has_tags(turns: list[Any], layout: Layout) -> bool:
    return bool(turns) and all(
        isinstance(turn, Mapping)
        and isinstance(turn.get(layout.role_tag), str)
        and isinstance(turn.get(layout.content_tag), str)
        for turn in turns
    )
