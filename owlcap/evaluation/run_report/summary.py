"""The head of the page, and its tables of held-out figures."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from owlcap.evaluation.pages import duration, number
from owlcap.evaluation.run_report.reading import Point, RunContents
from owlcap.evaluation.table import count_line, show_figure

EDGE = 0.1  # the share of a run's steps that "at first" and "at last" are the mean of
HELD_OUT = ("reward", "cser", "correctness", "completeness", "f1", "motion_f1", "detail_f1", "length_words")


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline figure: at last, and at first."""

    name: str
    value: str
    before: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What stands above everything else."""

    name: str
    facts: tuple[str, ...]
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class EvaluationTable:
    """Held-out figures by step, with their standard errors."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lost: tuple[str, ...] = ()  # a line a report some of whose clips have no figures: which, and why


def summary(contents: RunContents) -> Summary:
    """Name, state, times, and the figures one looks at first."""
    config = contents.config
    wanted = config.get("num_steps")
    kind = {"rl": "reinforcement learning", "sft": "supervised fine-tuning"}.get(str(config.get("kind")), "run")
    steps = (
        f"{contents.last_step:,} steps" if not isinstance(wanted, int) else f"step {contents.last_step:,} of {wanted:,}"
    )
    facts = [kind, steps, _state(contents)]
    if contents.times:
        first, last = min(contents.times), max(contents.times)
        facts.append(f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(first))} UTC, {duration(last - first)}")
    commit = contents.versions.get("git_commit")
    if isinstance(commit, str):
        facts.append(f"commit {commit[:10]}{'+changes' if commit.endswith('+changes') else ''}")
    return Summary(str(config.get("name") or contents.dir.path.name), tuple(facts), tuple(_tiles(contents)))


def _state(contents: RunContents) -> str:
    if _reached(contents) is False:
        return "before its end: still running, or interrupted"
    return "finished" if contents.dir.model.exists() else "no model/ yet: still running, or ended early"


def _reached(contents: RunContents) -> bool | None:
    """Whether the figures go up to the steps or epochs that were asked for; None where that is not known."""
    config, epoch = contents.config, contents.figures.get("train/epoch")
    section = config.get("sft") if config.get("kind") == "sft" else config
    if not isinstance(section, Mapping):
        return None
    steps, epochs = section.get("num_steps", section.get("max_steps")), section.get("num_epochs")
    if isinstance(steps, int) and (contents.last_step >= steps or section is config):
        return contents.last_step >= steps
    return epoch[-1].value >= epochs if epoch and isinstance(epochs, int) else None


def evaluation_tables(contents: RunContents) -> tuple[EvaluationTable, ...]:
    """Greedy captions, then sampled ones."""
    tables = []
    for sampled, title in ((False, "Greedy captions"), (True, "Captions sampled at temperature 1")):
        reports = [(step, report) for step, is_sampled, report in contents.evaluations if is_sampled == sampled]
        names = [name for name in HELD_OUT if any(name in report.figures for _, report in reports)]
        rows = [
            (
                f"{step:,}",
                *(show_figure(report.figures.get(name)) for name in names),
                f"{report.num_scored}/{report.num_clips}",
            )
            for step, report in reports
        ]
        if rows:
            header = ("step", *(name.replace("_", " ") for name in names), "clips")
            lost = tuple(count_line(report) for _, report in reports if report.num_scored < report.num_clips)
            tables.append(EvaluationTable(title, header, tuple(rows), lost))
    return tuple(tables)


def _tiles(contents: RunContents) -> list[Tile]:
    figures = contents.figures
    tiles = []
    for label, name in (("Reward", "reward/mean"), ("CSER", "reward/cser"), ("Loss", "train/loss")):
        if name in figures and not (name == "train/loss" and tiles):  # a policy's loss says nothing
            first, last = _edges(figures[name])
            tiles.append(Tile(label, number(last, 3), number(first, 3)))
    for label, name in (("CSER, held out", "eval/cser"), ("Validation loss", "validation/loss")):
        if name in figures:
            first, last = figures[name][0], figures[name][-1]
            tiles.append(Tile(label, number(last.value, 3), number(first.value, 3) if first != last else ""))
    if "rollout/tokens" in figures:
        first, last = _edges(figures["rollout/tokens"])
        tiles.append(Tile("Tokens a caption", number(last, 3), number(first, 3)))
    if "seconds/step" in figures:
        points = figures["seconds/step"]
        tiles.append(Tile("A step takes", duration(sum(point.value for point in points) / len(points))))
    if spent := sum(point.value for point in figures.get("judge/usd", ())):
        tiles.append(Tile("Judges cost", f"{spent:,.2f} USD"))
    return tiles


def _edges(points: Sequence[Point]) -> tuple[float, float]:
    """Means over the first and the last tenth of the steps."""
    count = max(1, round(EDGE * len(points)))
    first, last = (math.fsum(point.value for point in part) / count for part in (points[:count], points[-count:]))
    return first, last
