"""Results of benchmarks as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from owlcap.data.text_file import parse_json
from owlcap.errors import DataError
from owlcap.evaluation.benchmarks.catalogue import CAPTIONS, KINDS
from owlcap.evaluation.benchmarks.values import BenchmarkResult, Evidence, Interval, ItemScore
from owlcap.evaluation.report import CaptionReport, ClipProblem, Figure, load_report
from owlcap.evaluation.saved import fault_of, json_text
from rewards.chat import Usage

RESULT_FILE = "result.json"


def save_result(result: BenchmarkResult, path: Path) -> None:
    """Write a result through a temporary file, so that a reader never sees half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    values = {"is_complete": result.is_complete, **asdict(result)}
    temporary.write_text(json_text(values, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def load_result(path: Path) -> BenchmarkResult:
    """A result by its folder or file; a report of `owlcap eval captions` is taken for one of its figures.

    Raises:
        DataError: there is none, or the file holds something else.
    """
    file = path / RESULT_FILE if path.is_dir() else path
    try:
        raw = parse_json(file.read_text(encoding="utf-8"))
        if "benchmark" not in raw and "rows" not in raw:
            raise ValueError("it has neither a benchmark nor a report's rows")
        if "benchmark" not in raw:
            return _of_report(load_report(file))
        return _result(raw)
    except OSError as error:
        raise DataError(f"the result cannot be read: {error.strerror}", where=str(file)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"no result of an evaluation: {fault_of(error)}",
            where=str(file),
            allowed=f"a folder of `owlcap eval`, its {RESULT_FILE}, or a report of `owlcap eval captions --out`",
            cure="evaluate again with the same --out: judged items are in the judge's cache and cost nothing",
        ) from error


def _result(raw: Mapping[str, Any]) -> BenchmarkResult:
    if raw["benchmark"] not in KINDS:
        raise ValueError(f"unknown benchmark {raw['benchmark']!r}")
    scores = tuple(
        ItemScore(**{**row, "evidence": tuple(Evidence(**one) for one in row["evidence"])}) for row in raw["scores"]
    )
    return BenchmarkResult(
        benchmark=raw["benchmark"],
        name=raw["name"],
        headline=raw["headline"],
        judge=raw["judge"],
        num_cases=raw["num_cases"],
        figures={name: Interval(**figure) for name, figure in raw["figures"].items()},
        official={name: Interval(**figure) for name, figure in raw["official"].items()},
        scores=scores,
        missing=tuple(raw["missing"]),
        failed=tuple(ClipProblem(**problem) for problem in raw["failed"]),
        notes=tuple(raw["notes"]),
        usage=Usage(**raw["usage"]),
    )


def _of_report(report: CaptionReport) -> BenchmarkResult:
    figures = {name: _interval(figure) for name, figure in report.figures.items()}
    scores = tuple(ItemScore(row.id, CAPTIONS, row.metrics, row.caption, row.reference) for row in report.rows)
    missing = tuple(problem.id for problem in report.failed)
    return BenchmarkResult(
        CAPTIONS, report.name, "ours", "", report.num_clips, figures, figures, scores, missing, report.unscored
    )


def _interval(figure: Figure) -> Interval:
    return Interval(figure.mean, figure.standard_error)
