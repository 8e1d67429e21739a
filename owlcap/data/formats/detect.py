"""Which format a source is of, with the evidence, and its rows as questions and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from owlcap.data.formats import hf_disk, llava, owlcap_rows, sharegpt, swift, trl, webdataset_tar
from owlcap.data.formats.reading import Found, Problem, read_file
from owlcap.data.formats.turns import Turns
from owlcap.data.text_file import no_rows, parse_json
from owlcap.errors import DataError

Convert = Callable[[Mapping[str, Any]], Turns]

AUTO = "auto"
# Looked at in this order: the first that fits is the format. What stands first has the more telling keys.
ROW_FORMATS = {"trl": trl, "swift": swift, "sharegpt": sharegpt, "owlcap": owlcap_rows, "llava": llava, "hf": hf_disk}
FORMATS = ("owlcap", "swift", "sharegpt", "llava", "trl", "hf", "webdataset")
ROWS_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one file or folder, how they are converted, and how often they count."""

    path: Path
    rows: Callable[[], Iterator[Found | Problem]]
    convert: Convert
    repeat: float = 1.0  # below 1: that share of the rows, from the first


@dataclass(frozen=True, slots=True)
class Source:
    """What a path holds."""

    format: str
    evidence: str
    parts: tuple[Part, ...]


def open_source(path: Path, wanted: str = AUTO) -> Source:
    """Find out what a path holds.

    Args:
        wanted: a format, or "auto".

    Raises:
        DataError: no such path, no format fits, or an index names files that are not there.
    """
    if wanted not in (AUTO, *FORMATS):
        raise DataError(f"There is no format {wanted!r}.", allowed=", ".join((AUTO, *FORMATS)), cure="mend --format")
    if not path.exists():
        raise DataError("There is no such file or folder.", where=str(path), cure="check the path of SRC")
    tars = webdataset_tar.tar_files(path)
    if (wanted == "webdataset") != bool(tars) and (wanted == "webdataset" or wanted in ROW_FORMATS):
        raise DataError(
            f"The format {wanted!r} does not fit: {'these are' if tars else 'there are no'} tar files.",
            where=str(path),
            allowed="webdataset or auto (rows of any format may be in its JSON)"
            if tars
            else "a .tar file, or a folder of them",
            cure="leave out --format",
        )
    if path.is_dir() and (evidence := hf_disk.is_data_set(path)):
        return _by_rows(path, partial(hf_disk.read_folder, path), _rows_wanted(wanted), "hf", evidence)
    if tars:
        shards = tuple(Part(tar, partial(webdataset_tar.read_tar, tar), _convert_any) for tar in tars)
        return Source("webdataset", f"{len(tars)} tar file{'s' if len(tars) > 1 else ''}", shards)
    if path.is_dir() and (path / sharegpt.DESCRIPTION).is_file():
        path = path / sharegpt.DESCRIPTION
    if path.is_dir():
        raise DataError(
            "The folder is no data set that is known here.",
            where=str(path),
            allowed="a folder of save_to_disk, of .tar files, or with LLaMA-Factory's dataset_info.json",
            cure="name the file that holds the rows",
        )
    index = _json_object(path)
    if owlcap_rows.is_index(index):
        files = owlcap_rows.indexed_files(path, index)
        parts = [Part(file, partial(read_file, file), owlcap_rows.convert, repeat) for file, repeat in files]
        return Source("owlcap", f"an index whose entries have `annotation`: {len(files)} files", tuple(parts))
    if path.name == sharegpt.DESCRIPTION:
        described = sharegpt.described_files(path, index)
        parts = [Part(file, partial(read_file, file), partial(sharegpt.convert, layout=one)) for file, one in described]
        return Source("sharegpt", f"{path.name} describes {len(described)} files with videos", tuple(parts))
    return _by_rows(path, partial(read_file, path), _rows_wanted(wanted), None, "")


def _convert_any(row: Mapping[str, Any]) -> Turns:
    """A sample of a shard, whose JSON may be a row of any format."""
    module = next((module for module in ROW_FORMATS.values() if module.fits(row) is not None), hf_disk)
    return module.convert(row)


def _rows_wanted(wanted: str) -> str:
    return wanted if wanted in ROW_FORMATS and wanted != "hf" else AUTO


def _by_rows(
    path: Path, rows: Callable[[], Iterator[Found | Problem]], wanted: str, container: str | None, evidence: str
) -> Source:
    """A source whose format its first rows tell."""
    looked_at = list(islice(rows(), ROWS_LOOKED_AT))
    if not looked_at:
        raise no_rows(path)
    if wanted != AUTO:
        return Source(wanted, "as asked for", (Part(path, rows, ROW_FORMATS[wanted].convert),))
    first = [found for found in looked_at if isinstance(found, Found)]
    for found in first:
        for name, module in ROW_FORMATS.items():
            if (why := module.fits(found.row)) is not None:
                told = f"{evidence + '; ' if evidence else ''}{found.where} has {why}"
                return Source(container or name, told, (Part(path, rows, module.convert),))
    if not first and isinstance(looked_at[0], Problem):
        problem = looked_at[0]
        raise DataError(
            f"None of the first {len(looked_at)} rows can be read: {problem.kind}, {problem.what}.",
            where=problem.where,
            allowed="UTF-8 text: JSON lines or one JSON list; or parquet",
            cure="convert the file, or name another one",
        )
    keys = ", ".join(sorted(map(str, first[0].row)))
    raise DataError(
        "The rows are of no format that is known here.",
        where=str(path),
        allowed=", ".join(FORMATS) + f"; the first row has the keys: {keys}",
        cure="see docs/data.md for each format's keys, or name one with --format",
    )


def _json_object(path: Path) -> Any:
    """The JSON object that a whole .json file is; None where it is something else."""
    if path.suffix != ".json" or path.stat().st_size > 2**26:  # an index is small
        return None
    try:
        value = parse_json(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
