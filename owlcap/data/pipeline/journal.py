"""Records of finished clips on disk: one file an actor, one line a clip, appended and flushed as each is finished.

    OUT/records/STEP/*.jsonl     {"id", "key", "record"} or {"id", "key", "failure"}

`key` is a hash of everything that a record depends on: models, prompts, settings, what was known of the clip before. A
record of another key is not taken up again. A line cut off by a kill is left out: its clip is done anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from owlcap.errors import DataError


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one clip."""

    id: str
    record: Mapping[str, Any] | None
    failure: str = ""


class JournalWriter:
    """Appends what one process finished."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / f"{uuid4().hex}.jsonl").open("a", encoding="utf-8")
        except OSError as error:
            raise DataError(f"The records cannot be written: {error.strerror}.", where=str(folder)) from error

    def write(self, entry: Entry, key: str) -> None:
        """Keep one entry."""
        told = {"record": entry.record} if entry.record is not None else {"failure": entry.failure}
        self._file.write(json.dumps({"id": entry.id, "key": key, **told}, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Journal:
    """What all actors and earlier runs wrote. Records stay on disk; their places are in memory.

    Later entries of a clip win, and a record wins over a failure.

    Args:
        keys: of the clips, by id; other entries are left out.
    """

    def __init__(self, folder: Path, keys: Mapping[str, str]) -> None:
        self._places: dict[str, tuple[Path, int, int]] = {}  # of records: file, first byte, length
        self.failures: dict[str, str] = {}
        for path in sorted(folder.glob("*.jsonl")):
            place = 0
            with path.open("rb") as file:
                for line in file:
                    self._note(path, place, line, keys)
                    place += len(line)
        for name in self._places.keys() & self.failures.keys():
            del self.failures[name]

    def _note(self, path: Path, place: int, line: bytes, keys: Mapping[str, str]) -> None:
        try:
            found = json.loads(line)
        except ValueError:  # cut off by a kill
            return
        if found["id"] not in keys or found["key"] != keys[found["id"]]:
            return
        if "record" in found:
            self._places[found["id"]] = (path, place, len(line))
        else:
            self.failures[found["id"]] = found["failure"]

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def records(self, ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Records of the clips that have one, in the order of `ids`."""
        for name in ids:
            if name in self._places:
                path, place, length = self._places[name]
                with path.open("rb") as file:
                    file.seek(place)
                    yield json.loads(file.read(length))["record"]


def key_of(**parts: Any) -> str:
    """Hash of what records depend on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
