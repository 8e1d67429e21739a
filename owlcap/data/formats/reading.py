"""Raw rows of files, with the place of each: JSON lines, one JSON list, parquet. A bad row never ends the reading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owlcap.data.text_file import skip_mark
from owlcap.errors import DataError

ROWS_AT_ONCE = 64  # of a parquet file or an Arrow table: rows may hold whole videos


@dataclass(frozen=True, slots=True)
class Found:
    """A row as it stands in its file."""

    where: str  # file:line, or file and row number
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
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        told = f"{error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else str(error)
        return Problem(where, "broken JSON", told, text.rstrip("\r\n"))
    if not isinstance(row, dict):
        return Problem(where, "not an object", f"a JSON {type(row).__name__}; allowed: an object", row)
    return Found(where, row)


def _read_list(path: Path) -> Iterator[Found | Problem]:
    """Objects of a JSON list, each with the line it begins on; what follows a break cannot be told apart."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file is not UTF-8 (byte {error.start}).",
            where=str(path),
            cure="save it as UTF-8; a JSON list cannot be read in parts",
        ) from error
    decoder = json.JSONDecoder()
    place, line, seen = text.index("[") + 1, 1, 0
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        line, seen = line + text.count("\n", seen, place), place
        if place < len(text) and text[place] == "]":
            return
        try:
            row, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            told = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            broken = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else f"{path}:{line}"
            rest = text[seen:]
            yield Problem(broken, "broken JSON", f"{told}; the rest of the list is one problem, kept whole", rest)
            return
        if isinstance(row, dict):
            yield Found(f"{path}:{line}", row)
        else:
            yield Problem(f"{path}:{line}", "not an object", f"a JSON {type(row).__name__}; allowed: an object", row)


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
