"""Rows that stay in their file: a sequence of samples of which only the places in the file are in memory.

Opening reads the file once and checks every row, as `read_rows` does; after that a row costs one read and one parse
when it is asked for, and 12 bytes of memory before and after. A million rows take 12 MB.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np

from owlcap.config import DataSection
from owlcap.data.row import parse_row
from owlcap.data.text_file import no_rows, skip_mark
from owlcap.errors import DataError
from owlcap.types import Sample


class RowFile(Sequence[Sample]):
    """The samples of a JSONL, by number. Safe to use from several threads; pickles as its path and places.

    Raises:
        DataError: the file cannot be read, has no rows, or a row is bad; the error names file:line and the cure.
    """

    def __init__(self, path: str | Path, data: DataSection | None = None) -> None:
        self.path = Path(path)
        self.data = data or DataSection(train=str(path))
        self._starts, self._lines = _scan(self.path, self.data)
        self._size = self.path.stat().st_size
        self._file = _open(self.path)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start, end = int(self._starts[place]), int(self._starts[place + 1])
        line = os.pread(self._file, end - start, start)
        return parse_row(line.split(b"\n", 1)[0], self.path, int(self._lines[place]), self.data)

    def __reduce__(self):  # the other process opens the file itself, and does not check the rows again
        return _reopen, (self.path, self.data, self._starts, self._lines, self._size)

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)


class Joined(Sequence[Sample]):
    """Several sequences of samples, one after another, without a copy."""

    def __init__(self, *parts: Sequence[Sample]) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        part = bisect_right(self._ends, place)
        return self._parts[part][place - self._ends[part]]  # counted from the part's end


def _reopen(path: Path, data: DataSection, starts: np.ndarray, lines: np.ndarray, size: int) -> RowFile:
    rows = RowFile.__new__(RowFile)
    rows.path, rows.data, rows._starts, rows._lines, rows._size = path, data, starts, lines, size
    rows._file = _open(path)
    if os.fstat(rows._file).st_size != size:
        raise DataError(
            "The data file is not the one that was opened before: its size differs.",
            where=str(path),
            cure="do not change data while a run reads it; every node must see the same file",
        )
    return rows


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(
            f"The data file cannot be read: {error.strerror}.",
            where=str(path),
            cure="check the path (data.train, data.validation, evaluation.data), or make a toy set: owlcap data toy",
        ) from error


def _scan(path: Path, data: DataSection) -> tuple[np.ndarray, np.ndarray]:
    """Byte at which each row starts (and the end of the file), and its line; every row is checked."""
    starts, lines, ids = array("Q"), array("I"), array("Q")
    with os.fdopen(_open(path), "rb") as file:
        place = skip_mark(file, path)
        for number, line in enumerate(file, start=1):
            if line.strip():
                sample = parse_row(line, path, number, data)
                starts.append(place)
                lines.append(number)
                ids.append(int.from_bytes(hashlib.blake2b(sample.id.encode(), digest_size=8).digest()))
            place += len(line)
    if not lines:
        raise no_rows(path)
    starts.append(place)
    _check_unique(np.frombuffer(ids, np.uint64), lines, path)
    return np.frombuffer(starts, np.uint64), np.frombuffer(lines, np.uint32)


def _check_unique(ids: np.ndarray, lines: array[int], path: Path) -> None:
    order = np.argsort(ids, kind="stable")
    equal = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(equal):
        first, second = sorted(lines[int(i)] for i in order[equal[0] : equal[0] + 2])
        raise DataError(
            "An id is used twice.",
            where=f"{path}:{second}",
            allowed=f"ids that are unique in the file; line {first} has this one already",
            cure="rename or delete one of the two rows",
        )
