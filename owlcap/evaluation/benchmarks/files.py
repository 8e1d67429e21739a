"""Files that other people wrote: every fault is a DataError that names file and line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from owlcap.data.text_file import parse_json
from owlcap.errors import DataError


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: it cannot be read, or is of another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8 text", where=str(path), cure="save it as UTF-8") from error


def json_lines(path: Path, allowed: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a JSONL file, each with its place "file:line". Blank lines do not count.

    Args:
        allowed: what a line looks like, for messages.

    Raises:
        DataError: as `read_text`; a line is no JSON object; there is none.
    """
    found = False
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = parse_json(line)
        except JSONDecodeError as error:
            raise DataError(f"broken JSON: {error}", where=where, allowed=allowed) from error
        if not isinstance(row, dict):
            raise DataError("the line is no JSON object", where=where, allowed=allowed)
        found = True
        yield where, row
    if not found:
        raise DataError("the file has no rows", where=str(path), allowed=allowed)


def json_array(path: Path, allowed: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a file that is one JSON array, each with its place "file, item N"; JSONL is taken too.

    Raises:
        DataError: as `json_lines`.
    """
    text = read_text(path)
    if not text.lstrip().startswith("["):
        yield from json_lines(path, allowed)
        return
    try:
        rows = parse_json(text)
    except JSONDecodeError as error:
        raise DataError(f"broken JSON: {error}", where=f"{path}:{error.lineno}", allowed=allowed) from error
    if not rows:
        raise DataError("the file has no rows", where=str(path), allowed=allowed)
    for number, row in enumerate(rows, 1):
        where = f"{path}, item {number}"
        if not isinstance(row, dict):
            raise DataError("the item is no JSON object", where=where, allowed=allowed)
        yield where, row


def wrong_file(benchmark: str, where: str, allowed: str, what: str) -> DataError:
    """The error for annotations of another benchmark."""
    return DataError(
        f"this is no annotation of {benchmark}: {what}",
        where=where,
        allowed=allowed,
        cure=f"give {benchmark}'s own annotation file; `owlcap eval --help` lists the benchmarks",
    )
