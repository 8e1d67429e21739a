"""Where a data command may write: never over what it reads, and with the ending that the format has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from owlcap.errors import DataError

ENDINGS = (".jsonl", ".parquet")  # of the formats that data commands write


def check_output(out: Path, sources: Iterable[Path], ending: str, *, beside: Iterable[Path] = ()) -> None:
    """Find out before anything is read whether OUT can be the file to write.

    Args:
        out: the file to write.
        sources: files that are read, under any spelling or link.
        ending: of the format that is written, e.g. ".jsonl".
        beside: further files that are written.

    Raises:
        DataError: OUT has another ending, or a file to write is one of the sources.
    """
    if out.suffix != ending:
        raise DataError(
            f"The name of the file to write does not end in {ending}, which is what is written.",
            where=str(out),
            allowed=f"a file that ends in {ending}",
            cure=f"name it {out.with_suffix(ending)}",
        )
    for written in (out, *beside):
        for source in sources:
            if written.exists() and source.exists() and written.samefile(source):
                raise DataError(
                    "The file to write is the one that is read.",
                    where=str(written),
                    allowed="another file",
                    cure=f"choose another name for OUT; {source} stays as it is",
                )


def other_formats(out: Path) -> list[Path]:
    """Files that are called as OUT is but for an ending of another format: of an earlier run, perhaps."""
    others = (out.with_suffix(ending) for ending in ENDINGS if ending != out.suffix)
    return [path for path in others if path.exists()]


def refuse_other_formats(out: Path) -> None:
    """Find out before a pipeline starts whether its folder holds its file in another format, which would grow stale.

    Raises:
        DataError: it does.
    """
    for other in other_formats(out):
        raise DataError(
            f"The folder holds {other.name} of an earlier run, and {out.name} is to be written beside it.",
            where=str(other),
            allowed="one format in a folder, so that no file is out of date",
            cure=f"move or delete it (what is done is not done again), or set output={other.suffix[1:]}",
        )
