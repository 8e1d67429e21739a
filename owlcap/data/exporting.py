"""`owlcap data export`: our rows for other trainers, ms-swift's JSONL or verl's parquet, with absolute video paths."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from owlcap.config import DataSection
from owlcap.data.formats import swift, verl_parquet
from owlcap.data.rows import VIDEO_MARK, Row, scan_rows, write_rows
from owlcap.errors import DataError
from owlcap.types import Sample

ROWS_AT_ONCE = 1024


def export_data(data: Path, out: Path, format: str, section: DataSection | None = None) -> int:
    """Write the rows of a JSONL for another trainer; the number of rows.

    Args:
        format: "swift" or "verl".
        section: which caption is the answer and which the reference, as in training; None: the row's own.

    Raises:
        DataError: another format, a bad row, or a file that cannot be written; `out` is then as it was.
    """
    if format not in EXPORTS:
        raise DataError(f"There is no export to {format!r}.", allowed=", ".join(EXPORTS), cure="mend --format")
    count = 0

    def samples() -> Iterator[Sample]:
        nonlocal count
        for _, sample in scan_rows(data, section):
            if isinstance(sample, DataError):
                raise sample
            count += 1
            yield sample

    EXPORTS[format](out, samples())
    return count


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


EXPORTS: dict[str, Callable[[Path, Iterator[Sample]], Any]] = {"swift": _to_swift, "verl": _to_verl}
