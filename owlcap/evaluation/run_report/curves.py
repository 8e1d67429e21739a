"""Curves of a run: which figures are drawn together, thinned so that a page stays small, as paths of an SVG.

A thinned curve keeps the lowest and the highest value of each of at most MAX_POINTS / 2 spans of steps, so that every
point is a value that was logged and no spike is lost; the means of neighbouring steps are drawn over it. Paths are in a
square of SIDE x SIDE, first step left, lowest value at the bottom; the page stretches it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from owlcap.evaluation.run_report.reading import Point, RunContents

MAX_POINTS = 400  # of one curve
MAX_SPARKS = 60  # of one small curve in the table
MAX_MEANS = 60
MAX_DOTS = 20  # a curve of no more points has a mark at each: a line of no length with round ends
SIDE = 1000
# Titles, and the figures of each with their names on the page.
PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Reward",
        (("reward/mean", "training"), ("eval/reward", "held out"), ("eval_sampled/reward", "held out, sampled")),
    ),
    ("CSER", (("reward/cser", "training"), ("eval/cser", "held out"), ("eval_sampled/cser", "held out, sampled"))),
    ("Correctness and completeness", (("reward/correctness", "correctness"), ("reward/completeness", "completeness"))),
    ("Motion and detail F1", (("reward/motion_f1", "motion"), ("reward/detail_f1", "detail"))),
    ("Motion and detail F1, held out", (("eval/motion_f1", "motion"), ("eval/detail_f1", "detail"))),
    ("Loss", (("train/loss", "training"), ("validation/loss", "validation"))),
    ("Tokens a caption", (("rollout/tokens", "tokens"),)),
    ("Reward spread within a group", (("reward/std_in_group", "standard deviation"),)),
    ("KL to the reference policy", (("train/kl", "KL"),)),
    ("Entropy", (("train/entropy", "entropy"),)),
    ("Gradient norm", (("train/grad_norm", "before clipping"),)),
    ("Learning rate", (("train/lr", "learning rate"),)),
    (
        "Shares that should stay small",
        (
            ("reward/unscored_share", "unscored"),
            ("rollout/truncated_share", "cut off"),
            ("train/clip_fraction", "clipped"),
        ),
    ),
    ("Repetition in captions", (("reward/repetition", "repeated 4-grams"),)),
    ("Sampler against learner", (("train/mismatch_kl", "KL"),)),
    ("Updates between sampling and learning", (("staleness/mean", "mean"), ("staleness/max", "most"))),
    ("Prompts without captions", (("rollout/failed", "failed"),)),
    ("Judge calls", (("judge/requests", "asked"), ("judge/cached", "from the cache"), ("judge/failed", "failed"))),
    ("Judge cost, USD", (("judge/usd", "a step"),)),
    ("Seconds a step", (("seconds/step", "whole step"),)),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure over steps."""

    name: str  # as logged
    label: str
    path: str  # of an SVG
    points: str  # JSON of [step, value], for the values that are shown on hover
    mean: str  # path of the means of neighbouring steps; empty where the points are few
    dots: str  # path of a mark at each point; empty where the points are too many for that
    last: float


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share their axes."""

    title: str
    curves: tuple[Curve, ...]
    first_step: int
    last_step: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One logged figure in the table of all."""

    name: str
    first: float
    last: float
    lowest: float
    highest: float
    num_points: int
    path: str


def panels(contents: RunContents) -> tuple[Panel, ...]:
    """The curves that a run has. One that never leaves 0 says nothing and is in the table only."""
    made = []
    for title, wanted in PANELS:
        named = [(name, label, contents.figures[name]) for name, label in wanted if name in contents.figures]
        if any(point.value for _, _, points in named for point in points):
            made.append(_panel(title, named))
    return tuple(made)


def all_figures(figures: Mapping[str, Sequence[Point]]) -> tuple[FigureRow, ...]:
    """Every figure of the run, by name."""
    rows = []
    for name, points in figures.items():
        values = [point.value for point in points]
        low, high = min(values), max(values)
        few = thinned(points, MAX_SPARKS)
        places = _places(few, (points[0].step, points[-1].step), (low, high))
        rows.append(FigureRow(name, values[0], values[-1], low, high, len(points), _path(places)))
    return tuple(rows)


def thinned(points: Sequence[Point], at_most: int) -> list[Point]:
    """At most so many of the points, in order: the lowest and the highest of each span of steps, and both ends."""
    if len(points) <= at_most:
        return list(points)
    kept = {0, len(points) - 1}
    spans = at_most // 2 - 1
    for number in range(spans):
        part = range(number * len(points) // spans, (number + 1) * len(points) // spans)
        kept |= {min(part, key=lambda i: points[i].value), max(part, key=lambda i: points[i].value)}
    return [points[i] for i in sorted(kept)]


def means(points: Sequence[Point]) -> list[Point]:
    """Means over MAX_MEANS spans of neighbouring steps, each at the middle of its span."""
    size = math.ceil(len(points) / MAX_MEANS)
    parts = [points[first : first + size] for first in range(0, len(points), size)]
    return [
        Point((part[0].step + part[-1].step) // 2, math.fsum(point.value for point in part) / len(part))
        for part in parts
    ]


def _panel(title: str, named: Sequence[tuple[str, str, Sequence[Point]]]) -> Panel:
    everything = [point for _, _, points in named for point in points]
    steps = min(point.step for point in everything), max(point.step for point in everything)
    values = min(point.value for point in everything), max(point.value for point in everything)
    curves = []
    for name, label, points in named:
        few = thinned(points, MAX_POINTS)
        shown = json.dumps([[point.step, float(f"{point.value:.6g}")] for point in few], separators=(",", ":"))
        places = _places(few, steps, values)
        dots = "".join(f"M{place}h0" for place in places) if len(points) <= MAX_DOTS else ""
        mean = _path(_places(means(points), steps, values)) if len(points) > 2 * MAX_MEANS else ""
        curves.append(Curve(name, label, _path(places), shown, mean, dots, points[-1].value))
    return Panel(title, tuple(curves), *steps, *values)


def _places(points: Sequence[Point], steps: tuple[int, int], values: tuple[float, float]) -> list[str]:
    return [f"{_place(point.step, steps):.0f} {SIDE - _place(point.value, values):.0f}" for point in points]


def _path(places: Sequence[str]) -> str:
    return "M" + "L".join(places)


def _place(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return SIDE / 2 if high == low else SIDE * (value - low) / (high - low)
