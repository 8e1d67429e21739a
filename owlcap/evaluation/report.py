"""Caption figures of one policy on one set of clips: means with standard errors, and the rows they come from.

A clip is the unit of statistics. A figure that a clip does not have (motion figures of a caption pair
without motion units, say) is left out of that figure's mean, and every mean says how many clips it rests on.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from owlcap.data.text_file import parse_json
from owlcap.errors import ConfigError, DataError
from owlcap.evaluation.saved import fault_of

# The order in which figures are shown; others follow by name.
METRIC_ORDER = (
    "reward",
    "cser",
    "correctness",
    "completeness",
    "f1",
    "motion_correctness",
    "motion_completeness",
    "motion_f1",
    "detail_correctness",
    "detail_completeness",
    "detail_f1",
    "length_words",
    "repetition",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """Mean over clips with its standard error, which is None for fewer than two clips."""

    mean: float
    standard_error: float | None
    num_clips: int


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One scored clip. `metrics` are means over its captions where it has several."""

    id: str
    captions: tuple[str, ...]
    reference: str
    metrics: Mapping[str, float]

    @property
    def caption(self) -> str:
        """The clip's first caption."""
        return self.captions[0]


@dataclass(frozen=True, slots=True)
class ClipProblem:
    """A clip without figures, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CaptionReport:
    """Figures over `num_clips` clips asked for; `failed` gave no caption, `unscored` got no score."""

    name: str
    num_clips: int
    figures: Mapping[str, Figure]
    rows: tuple[ClipRow, ...]
    failed: tuple[ClipProblem, ...] = ()
    unscored: tuple[ClipProblem, ...] = ()

    @property
    def num_failed(self) -> int:
        """Clips that gave no caption."""
        return len(self.failed)

    @property
    def num_unscored(self) -> int:
        """Clips whose captions no reward could score."""
        return len(self.unscored)

    @property
    def num_scored(self) -> int:
        """Clips the means rest on (a figure's own count may be lower)."""
        return len(self.rows)

    def mean(self, metric: str) -> float:
        """Mean of one figure; ConfigError names the figures there are."""
        return self.figure(metric).mean

    def figure(self, metric: str) -> Figure:
        """One figure; ConfigError names the figures there are."""
        if metric not in self.figures:
            raise ConfigError(
                f"the report has no figure {metric!r}", where=f"report {self.name}", allowed=", ".join(self.figures)
            )
        return self.figures[metric]

    def scalars(self) -> dict[str, float]:
        """Flat numbers for a metrics log: means, `<metric>_se`, and the counts of clips."""
        flat = {name: figure.mean for name, figure in self.figures.items()}
        for name, figure in self.figures.items():
            if figure.standard_error is not None:
                flat[f"{name}_se"] = figure.standard_error
        counts = {"num_clips": self.num_clips, "num_scored": self.num_scored}
        counts |= {"num_failed": self.num_failed, "num_unscored": self.num_unscored}
        return flat | {name: float(count) for name, count in counts.items()}


def mean_and_error(values: Sequence[float]) -> Figure:
    """Mean and standard error (sample standard deviation / sqrt(n)) of at least one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Figure(mean, None, n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Figure(mean, math.sqrt(variance / n), n)


def make_report(
    name: str,
    rows: Iterable[ClipRow],
    *,
    failed: Iterable[ClipProblem] = (),
    unscored: Iterable[ClipProblem] = (),
) -> CaptionReport:
    """A report over the given clips, rows in order of id so that equal runs give equal files."""
    ordered = tuple(sorted(rows, key=lambda row: row.id))
    problems = [tuple(sorted(part, key=lambda problem: problem.id)) for part in (failed, unscored)]
    found = {metric for row in ordered for metric in row.metrics}
    names = [metric for metric in METRIC_ORDER if metric in found] + sorted(found - set(METRIC_ORDER))
    figures = {
        metric: mean_and_error([row.metrics[metric] for row in ordered if metric in row.metrics]) for metric in names
    }
    num_clips = len(ordered) + len(problems[0]) + len(problems[1])
    return CaptionReport(name, num_clips, figures, ordered, problems[0], problems[1])


def paired_difference(before: CaptionReport, after: CaptionReport, metric: str) -> Figure:
    """Mean and standard error of (after - before) over the clips that have the figure in both reports.

    Raises ConfigError when no clip has it in both.
    """
    first = {row.id: row.metrics[metric] for row in before.rows if metric in row.metrics}
    second = {row.id: row.metrics[metric] for row in after.rows if metric in row.metrics}
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise ConfigError(
            f"no clip has a figure {metric!r} in both reports",
            where=f"reports {before.name} ({len(first)} clips) and {after.name} ({len(second)} clips)",
            cure="compare two evaluations of the same clips",
        )
    return mean_and_error([second[id_] - first[id_] for id_ in shared])


def save_report(report: CaptionReport, path: str | Path) -> Path:
    """Write the report as JSON through a temporary file, so that a reader never sees half a report."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as f:
        temporary = Path(f.name)
        try:
            json.dump(asdict(report), f, indent=1, ensure_ascii=False, allow_nan=False)
            f.flush()
            os.fsync(f.fileno())
        except BaseException:
            temporary.unlink()
            raise
    temporary.replace(path)
    return path


def load_report(path: str | Path) -> CaptionReport:
    """Read a report that `save_report` wrote. Raises DataError where the file is not one."""
    try:
        raw: dict[str, Any] = parse_json(Path(path).read_text(encoding="utf-8"))
        return CaptionReport(
            name=raw["name"],
            num_clips=raw["num_clips"],
            figures={name: Figure(**figure) for name, figure in raw["figures"].items()},
            rows=tuple(ClipRow(r["id"], tuple(r["captions"]), r["reference"], r["metrics"]) for r in raw["rows"]),
            failed=tuple(ClipProblem(**problem) for problem in raw["failed"]),
            unscored=tuple(ClipProblem(**problem) for problem in raw["unscored"]),
        )
    except OSError as error:
        raise DataError(f"the report cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not a caption report: {fault_of(error)}",
            where=str(path),
            cure="write it again with `owlcap eval captions ... --out FILE`",
        ) from error
