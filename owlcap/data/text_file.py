"""What a file of rows must be: UTF-8, with or without its mark, and not empty. Else it is one error, not one a row.

A row must be JSON, read by `parse_json` alone: what breaks json.loads is one kind of error here, in plain words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

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


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        JSONDecodeError: it is none, whatever is wrong with it.
    """
    with json_errors(text):
        return json.loads(text)


@contextmanager
def json_errors(text: str, place: int = 0) -> Iterator[None]:
    """What reading JSON from a place of `text` raises, as one error that says in plain words what is wrong."""
    try:
        yield
    except RecursionError:
        raise json.JSONDecodeError("Brackets are nested too deep", text, place) from None
    except json.JSONDecodeError as error:
        # json speaks of an "invalid control character" where a line was cut off inside a text.
        cut = error.msg.startswith("Invalid control character") and text[error.pos] in "\r\n"
        if cut or error.msg.startswith("Unterminated string"):
            raise json.JSONDecodeError("The line ends in the middle of a text", text, error.pos) from None
        raise
    except ValueError as error:  # a number of thousands of digits
        raise json.JSONDecodeError(str(error), text, place) from None
