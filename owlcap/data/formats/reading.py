"""Raw rows of files, with the place of each: JSON lines, one JSON list, parquet. A bad row never ends the reading."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owlcap.data.text_file import json_errors, parse_json, skip_mark
from owlcap.errors import DataError

ROWS_AT_ONCE = 64  # of a parquet file or an Arrow table: rows may hold whole videos
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Found:
    """A row as it stands in its file."""

    where: str  # file:line, with the number of a list's item; or file and row number
    row: Mapping[str, Any]
    name: str = ""  # what its file calls it, where it has no id of its own


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that was not taken over, and why."""

    where: str
    kind: str  # what it is counted under
    what: str
    raw: Any  # the row as it was read: nothing is lost


def read_file(path: Path) -> Iterator[Found | Problem]:
    """Rows of a .jsonl, .json (a list) or .parquet file; others are read as JSON lines.

    Raises:
        DataError: the file cannot be read at all, or is UTF-16.
    """
    try:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
        elif path.suffix == ".json" and _starts_with_list(path):
            yield from _read_list(path)
        else:
            yield from _read_lines(path)
    except OSError as error:
        raise DataError(
            f"The file cannot be read: {error.strerror or error}.", where=str(path), cure="check the path"
        ) from error


def _starts_with_list(path: Path) -> bool:
    with path.open("rb") as file:
        skip_mark(file, path)
        return file.read(64).lstrip().startswith(b"[")


def _read_lines(path: Path) -> Iterator[Found | Problem]:
    with path.open("rb") as file:
        skip_mark(file, path)
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parsed(line, f"{path}:{number}")


def _parsed(line: bytes, where: str) -> Found | Problem:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        told = f"not UTF-8: byte {error.start} of the line is 0x{line[error.start]:02x}"
        return Problem(where, "wrong encoding", told, line.decode("latin-1").rstrip("\r\n"))
    try:
        row = parse_json(text)
    except json.JSONDecodeError as error:
        return Problem(where, "broken JSON", f"{error.msg} (column {error.colno})", text.rstrip("\r\n"))
    if not isinstance(row, dict):
        return Problem(where, "not an object", f"a JSON {type(row).__name__}; allowed: an object", row)
    return Found(where, row)


def _read_list(path: Path) -> Iterator[Found | Problem]:
    """Objects of a JSON list, each with its line and number; what follows a break cannot be told apart."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file is not UTF-8 (byte {error.start}).",
            where=str(path),
            cure="save it as UTF-8; a JSON list cannot be read in parts",
        ) from error
    place, line, seen, num_read = text.index("["), 1, 0, 0
    try:
        while text[place] != "]":
            place = _after_space(text, place + 1)
            if text[place : place + 1] == "]" and not num_read:
                break
            line, seen = line + text.count("\n", seen, place), place
            with json_errors(text, place):
                row, place = _DECODER.raw_decode(text, place)
            num_read += 1
            where = f"{path}:{line} item {num_read}"
            if isinstance(row, dict):
                yield Found(where, row)
            else:
                yield Problem(where, "not an object", f"a JSON {type(row).__name__}; allowed: an object", row)
            place = _after_space(text, place)
            if text[place : place + 1] not in (",", "]"):
                raise json.JSONDecodeError("A comma or the list's ] is missing", text, place)
        if text[place + 1 :].strip():
            raise json.JSONDecodeError("Something follows the list", text, place + 1)
    except json.JSONDecodeError as error:
        told = f"{error.msg}; the rest of the list is one problem, kept whole"
        yield Problem(f"{path}:{error.lineno} item {num_read + 1}", "broken JSON", told, text[place:])


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _read_parquet(path: Path) -> Iterator[Found | Problem]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield Found(f"{path}: row {number}", row)
    except ArrowInvalid as error:
        raise DataError(f"The file is not parquet: {error}.", where=f"{path}: after row {number}") from error
