"""Files that pipelines write: records with every intermediate, as JSONL or parquet, and reports."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from owlcap.data.formats.reading import Problem, read_file
from owlcap.data.pipeline.reasons import group_reasons
from owlcap.data.pipeline.run import StepRun
from owlcap.data.rows import write_rows
from owlcap.errors import DataError
from rewards.chat import Usage

ROWS_AT_ONCE = 1024
DECIMALS = 4  # of figures in reports

# Types of columns by their Arrow names: pyarrow is imported where a file is written.
TEXT, NUMBER, TRUTH = "string", "double", "bool"
JSON = "json"  # as text
UNITS_TYPE = "units"  # list of {text, tag, label}
TIMES = {"id": TEXT, "video": TEXT, "start_s": NUMBER, "end_s": NUMBER}


def write_records(path: Path, records: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Write records, all or nothing.

    Args:
        path: .jsonl or .parquet.
        columns: types of a parquet file's columns; JSONL needs none.

    Raises:
        DataError: the file cannot be written.
    """
    if path.suffix == ".parquet":
        _write_parquet(path, iter(records), columns)
    else:
        write_rows(path, records)  # type: ignore[arg-type]


def _write_parquet(path: Path, records: Iterator[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[str, pa.DataType] = {
        TEXT: pa.string(),
        NUMBER: pa.float64(),
        TRUTH: pa.bool_(),
        JSON: pa.string(),
        UNITS_TYPE: pa.list_(pa.struct({"text": pa.string(), "tag": pa.string(), "label": pa.string()})),
    }
    schema = pa.schema({name: types[kind] for name, kind in columns.items()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(temporary, schema) as writer:
            while part := list(islice(records, ROWS_AT_ONCE)):
                rows = [{name: _cell(row.get(name), kind) for name, kind in columns.items()} for row in part]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"The file cannot be written: {error.strerror or error}.", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _cell(value: Any, kind: str) -> Any:
    return json.dumps(value, ensure_ascii=False) if kind == JSON else value


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a file that `write_records` wrote.

    Raises:
        DataError: a row cannot be read.
    """
    for found in read_file(path):
        if isinstance(found, Problem):
            raise DataError(f"A record cannot be read: {found.what}", where=found.where, cure="make the file again")
        row = dict(found.row)
        if isinstance(row.get("prompts"), str):
            row["prompts"] = json.loads(row["prompts"])
        yield row


def done_text(done: StepRun) -> str:
    """What a step did, as lines."""
    lines = [f"clips     {len(done.ids):,}, {done.num_resumed:,} of them done before"]
    lines.append(f"done      {done.num_done:,}")
    lines += [f"failed    {reason.text()}" for reason in group_reasons(done.failures.items())]
    lines.append(f"asked     {spent_text(done.spent, done.spent_in_all)}")
    return "\n".join(lines)


def spent_text(spent: Usage, in_all: Usage) -> str:
    """What models were asked, as one line."""
    parts = [
        f"{spent.num_requests:,} requests ({spent.num_retries:,} of them tried again), {spent.num_cached:,} answers "
        f"from the cache, {spent.input_tokens:,} + {spent.output_tokens:,} tokens"
    ]
    if in_all.usd:
        parts.append(f"{spent.usd:.4f} USD, {in_all.usd:.4f} USD with earlier runs")
    elif in_all.num_requests != spent.num_requests:
        parts.append(f"{in_all.num_requests:,} requests with earlier runs")
    return "; ".join(parts)


def write_report(path: Path, figures: Mapping[str, Any]) -> None:
    """A report as JSON, its numbers with DECIMALS decimals at most."""
    path.write_text(json.dumps(_rounded(figures), indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def histogram(values: Iterable[float], edges: Iterable[float]) -> dict[str, int]:
    """Counts of values between edges; the last bin holds its upper edge too."""
    limits = list(edges)
    bins = {f"{low:g} to {high:g}": 0 for low, high in pairwise(limits)}
    names = list(bins)
    for value in values:
        place = next((i for i, high in enumerate(limits[1:]) if value < high), len(names) - 1)
        bins[names[place]] += 1
    return bins
