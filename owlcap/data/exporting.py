"""`owlcap data export`: our rows for other trainers, ms-swift's JSONL or verl's parquet, with absolute video paths."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from owlcap.config import DataSection
from owlcap.data.formats import swift, verl_parquet
from owlcap.data.outputs import check_output, other_formats
from owlcap.data.row import VIDEO_MARK
from owlcap.data.rows import Row, scan_rows, write_rows
from owlcap.errors import DataError
from owlcap.types import Sample

ROWS_AT_ONCE = 1024


@dataclass(slots=True)
class ExportReport:
    """What an export wrote, and what the other trainer has no place for."""

    out: Path
    beside: tuple[Path, ...]  # of another format, from before; as they were
    num_rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # rows that have it, by what it is

    def text(self) -> str:
        """The report as lines."""
        lines = [f"{self.num_rows:,} rows written to {self.out}"]
        lines += [f"left out: {what} of {count:,} rows" for what, count in self.left_out.most_common()]
        lines += [f"not of this export: {path} was there before, and is as it was" for path in self.beside]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Export:
    """How one trainer's files are written."""

    ending: str
    write: Callable[[Path, Iterator[Sample]], None]
    left_out: Callable[[Sample], Iterator[str]]


def export_data(data: Path, out: Path, format: str, section: DataSection | None = None) -> ExportReport:
    """Write the rows of a JSONL for another trainer.

    Args:
        format: "swift" or "verl".
        section: which caption is the answer and which the reference, as in training; None: the row's own.

    Raises:
        DataError: another format or ending, OUT is DATA, a bad row, or a file that cannot be written; `out` is then as
            it was.
    """
    if format not in EXPORTS:
        raise DataError(f"There is no export to {format!r}.", allowed=", ".join(EXPORTS), cure="mend --format")
    export = EXPORTS[format]
    check_output(out, [data], export.ending)
    beside = (path for path in other_formats(out) if not (data.exists() and path.samefile(data)))
    report = ExportReport(out, tuple(beside))

    def samples() -> Iterator[Sample]:
        for _, sample in scan_rows(data, section):
            if isinstance(sample, DataError):
                raise sample
            report.num_rows += 1
            report.left_out.update(export.left_out(sample))
            yield sample

    export.write(out, samples())
    return report


def _no_place(sample: Sample) -> Iterator[str]:
    """What neither trainer has a place for."""
    if sample.overlays:
        yield "overlays (the motion pathway is owlcap's own)"
    if sample.facts:
        yield "facts"


def _no_place_in_swift(sample: Sample) -> Iterator[str]:
    yield from _no_place(sample)
    if sample.start_s is not None or sample.end_s is not None:
        yield "the cut (start_s and end_s are in the file, but ms-swift shows its policy whole videos)"


def _to_swift(out: Path, samples: Iterator[Sample]) -> None:
    write_rows(out, (swift.export(_row(sample), os.path.abspath(sample.video)) for sample in samples))  # type: ignore[misc]


def _row(sample: Sample) -> Row:
    row = Row(
        id=sample.id,
        messages=[
            {"role": "user", "content": marked(sample.prompt)},
            {"role": "assistant", "content": sample.caption},
        ],
        videos=[sample.video],
        reference=sample.reference,
    )
    if sample.start_s is not None:
        row["start_s"] = sample.start_s
    if sample.end_s is not None:
        row["end_s"] = sample.end_s
    if sample.questions:
        row["questions"] = [
            {"question": one.question, "options": list(one.options), "answer": one.answer} for one in sample.questions
        ]
    if sample.keypoints:
        row["keypoints"] = list(sample.keypoints)
    return row


def marked(prompt: str) -> str:
    """The question with the video's mark in it: where it stands, or behind the text, as the policy sees it here."""
    return prompt if VIDEO_MARK in prompt else prompt + VIDEO_MARK


def _to_verl(out: Path, samples: Iterator[Sample]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = ""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        os.close(handle)
        with pq.ParquetWriter(temporary, verl_parquet.SCHEMA) as writer:
            while part := list(islice(samples, ROWS_AT_ONCE)):
                rows = [verl_parquet.row(sample, marked(sample.prompt)) for sample in part]
                writer.write_table(pa.Table.from_pylist(rows, schema=verl_parquet.SCHEMA))
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
        temporary = ""
    except OSError as error:
        raise DataError(f"The file cannot be written: {error.strerror or error}.", where=str(out)) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


EXPORTS = {
    "swift": Export(".jsonl", _to_swift, _no_place_in_swift),
    "verl": Export(".parquet", _to_verl, _no_place),
}
