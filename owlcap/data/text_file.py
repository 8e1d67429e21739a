"""What a file of rows must be: UTF-8, with or without its mark, and not empty. Else it is one error, not one a row."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from owlcap.errors import DataError

UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def no_rows(path: Path) -> DataError:
    """The error of a file without a row."""
    return DataError("The data file has no rows.", where=str(path), cure="write one JSON object a line into it")


def skip_mark(file: BinaryIO, path: Path) -> int:
    """Go behind the UTF-8 mark of a file that was just opened; the byte at which its text begins.

    Raises:
        DataError: the file is UTF-16, which no row of it could be read as.
    """
    start = file.read(4)
    first, second = start[:1] == b"\0", start[1:2] == b"\0"  # JSON begins with ASCII: half of it is zeros in UTF-16
    if start.startswith(UTF16_MARKS) or first != second:
        name = "UTF-16" if start.startswith(UTF16_MARKS) else "UTF-16BE" if first else "UTF-16LE"
        raise DataError(
            f"The file is not UTF-8 but {name}.",
            where=str(path),
            allowed="UTF-8, with or without a byte order mark",
            cure=f"convert it: iconv -f {name} -t UTF-8 {path} > NEW",
        )
    place = len(UTF8_MARK) if start.startswith(UTF8_MARK) else 0
    file.seek(place)
    return place
