"""What a run directory holds, read as far as it can be: every missing or half-written part becomes a sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from owlcap.data.text_file import parse_json
from owlcap.errors import ConfigError, DataError
from owlcap.evaluation.report import CaptionReport, load_report
from owlcap.runs import STEP_FILE, RunDir
from rl.step import GroupRow

OLDER_CONFIG = re.compile(r"config\.(\d+)\.yaml")
ROW = TypeAdapter(GroupRow)
SHOWN_PROBLEMS = 3  # of one file
Settings = TypeVar("Settings", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Point:
    """A figure's value after a step."""

    step: int
    value: float


@dataclass(frozen=True, slots=True)
class OlderConfig:
    """Settings that a run began or went on with before, and what was changed after them."""

    name: str
    changes: tuple[str, ...]  # lines of a unified diff


@dataclass(frozen=True, slots=True)
class RunContents:
    """All of a run but its rollouts, which are read step by step."""

    dir: RunDir
    config_text: str
    config: Mapping[str, Any]  # as YAML gives it; empty where it cannot be read
    older_configs: tuple[OlderConfig, ...]
    versions: Mapping[str, Any]  # as JSON gives it, those of packages beside the others
    figures: Mapping[str, tuple[Point, ...]]  # by name, in order of steps
    times: tuple[float, ...]  # when rows of metrics were written, seconds since 1970
    evaluations: tuple[tuple[int, bool, CaptionReport], ...]  # step, whether sampled
    rollout_steps: tuple[int, ...]
    problems: tuple[str, ...]

    @property
    def last_step(self) -> int:
        """The last step that has figures."""
        return max((points[-1].step for points in self.figures.values()), default=0)


def read_run(path: Path) -> RunContents:
    """Read a run directory.

    Raises:
        ConfigError: there is no such folder, or it is no run's.
    """
    run = RunDir(path.absolute())
    if not path.is_dir():
        raise ConfigError(
            "there is no such run", where=str(path), cure="name a run's folder, run_dir/name of its configuration"
        )
    if not (run.config_file.exists() or run.metrics_file.exists() or run.rollouts.exists()):
        raise ConfigError(
            "the folder is not a run's: it has no config.yaml, metrics.jsonl or rollouts/",
            where=str(path),
            cure="name a run's folder, run_dir/name of its configuration",
        )
    problems: list[str] = []
    config_text = _text(run.config_file, problems)
    figures, times = _read_metrics(run.metrics_file, problems)
    rollouts = sorted(_step_files(run.rollouts, "*.jsonl"))
    empty = [f"rollouts/{file.name} is empty" for _, file in rollouts if not file.stat().st_size]
    problems += _shortened(empty, "rollouts/")
    return RunContents(
        dir=run,
        config_text=config_text,
        config=_mapping(run.config_file, config_text, problems),
        older_configs=tuple(_older_configs(run, config_text, problems)),
        versions=_flat(_mapping(run.versions_file, _text(run.versions_file, problems), problems)),
        figures=figures,
        times=times,
        evaluations=tuple(_evaluations(run, problems)),
        rollout_steps=tuple(step for step, _ in rollouts),
        problems=tuple(problems),
    )


def read_rollouts(file: Path) -> tuple[list[GroupRow], list[str]]:
    """The rows of a rollouts file, and what is wrong with the others."""
    rows: list[GroupRow] = []
    wrong: list[str] = []
    name = f"rollouts/{file.name}"
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        return [], [f"{name} cannot be read: {error.strerror}"]
    for number, line in enumerate(lines, 1):
        try:
            rows.append(ROW.validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            wrong.append(f"{name}, line {number}, left out: {place + ': ' if place else ''}{first['msg']}")
    return rows, _shortened(wrong, name)


def section_of(contents: RunContents, kind: type[Settings], *keys: str) -> tuple[Settings, str | None]:
    """A section of the run's configuration, or its defaults and a sentence that says so."""
    raw: Any = contents.config
    for key in keys:
        raw = raw.get(key, {}) if isinstance(raw, Mapping) else {}
    try:
        return kind.model_validate(raw), None
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        return kind(), f"config.yaml: {'.'.join(keys)} cannot be read ({what}); its defaults are used"


def _read_metrics(file: Path, problems: list[str]) -> tuple[dict[str, tuple[Point, ...]], tuple[float, ...]]:
    found: dict[str, dict[int, float]] = {}
    times: list[float] = []
    wrong: list[str] = []
    num_null: dict[str, int] = {}
    for number, line in enumerate(_text(file, problems).splitlines(), 1):
        try:
            row = parse_json(line)
            step, time = int(row["step"]), float(row.get("time", math.nan))
            values = {name: float("nan" if value is None else value) for name, value in row.items()}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            wrong.append(f"metrics.jsonl, line {number}, left out: not a row of figures, or cut short")
            continue
        times.extend([time] if math.isfinite(time) else [])
        for name, value in values.items():
            if name in ("step", "time"):
                continue
            if math.isfinite(value):
                found.setdefault(name, {})[step] = value
            else:
                num_null[name] = num_null.get(name, 0) + 1
    problems += _shortened(wrong, "metrics.jsonl")
    not_finite = [f"{name}: {count} values were not finite and are left out" for name, count in num_null.items()]
    problems += _shortened(not_finite, "metrics.jsonl")
    figures = {name: tuple(Point(step, at[step]) for step in sorted(at)) for name, at in sorted(found.items())}
    return figures, tuple(times)


def _evaluations(run: RunDir, problems: list[str]) -> Iterator[tuple[int, bool, CaptionReport]]:
    for step, file in sorted(_step_files(run.evaluations, "*.json")):
        try:
            yield step, ".sampled" in file.name, load_report(file)
        except DataError as error:
            problems.append(f"evaluations/{file.name} is left out: {error.what}")


def _older_configs(run: RunDir, newest: str, problems: list[str]) -> Iterator[OlderConfig]:
    matches = [(match, file) for file in run.path.glob("config.*.yaml") if (match := OLDER_CONFIG.match(file.name))]
    texts = [(file.name, _text(file, problems)) for _, file in sorted(matches, key=lambda one: int(one[0].group(1)))]
    following = [*(text for _, text in texts[1:]), newest]
    for (name, text), after in zip(texts, following, strict=False):
        lines = unified_diff(text.splitlines(), after.splitlines(), lineterm="", n=1)
        yield OlderConfig(name, tuple(line for line in lines if not line.startswith(("---", "+++", "@@"))))


def _step_files(folder: Path, pattern: str) -> Iterator[tuple[int, Path]]:
    for file in folder.glob(pattern):
        if match := STEP_FILE.match(file.name):
            yield int(match.group(1)), file


def _text(file: Path, problems: list[str]) -> str:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        problems.append(f"{file.name} cannot be read: {error.strerror}")
        return ""
    if not text.strip():
        problems.append(f"{file.name} is empty")
    return text


def _mapping(file: Path, text: str, problems: list[str]) -> Mapping[str, Any]:
    """YAML, or JSON, which is YAML too."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problems.append(f"{file.name} is broken: {' '.join(str(error).split())}")
        return {}
    if value is not None and not isinstance(value, dict):
        problems.append(f"{file.name} is broken: not a mapping")
    return value if isinstance(value, dict) else {}


def _flat(versions: Mapping[str, Any]) -> dict[str, Any]:
    packages = versions.get("packages")
    both = {**versions, **(packages if isinstance(packages, dict) else {})}
    return {name: value for name, value in both.items() if name != "packages" and value is not None}


def _shortened(lines: list[str], file: str) -> list[str]:
    """The first few of many sentences about one file."""
    more = len(lines) - SHOWN_PROBLEMS
    return lines if more <= 0 else [*lines[:SHOWN_PROBLEMS], f"{file}: {more} more of this kind"]
