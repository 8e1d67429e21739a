"""How a run's time divides into the phases of its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from owlcap.evaluation.run_report.reading import Point
from rl.figures import PHASES

SHARES = (*PHASES, "wait")
MAX_COLUMNS = 60


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase's part of all steps' time."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Column:
    """Some neighbouring steps, and the mean seconds of one."""

    first_step: int
    last_step: int
    seconds: float
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """Of a whole run, as far as its steps logged their shares."""

    num_steps: int
    seconds: float
    phases: tuple[Phase, ...]
    columns: tuple[Column, ...]


def timing(figures: Mapping[str, Sequence[Point]]) -> Timing | None:
    """None where the steps logged no shares, as those of SFT."""
    seconds = {point.step: point.value for point in figures.get("seconds/step", ())}
    shares = {name: {point.step: point.value for point in figures.get(f"share/{name}", ())} for name in SHARES}
    steps = sorted(step for step in seconds if any(step in of for of in shares.values()))
    if not steps:
        return None
    spent = {name: {step: of.get(step, 0.0) * seconds[step] for step in steps} for name, of in shares.items()}
    size = math.ceil(len(steps) / MAX_COLUMNS)
    columns = []
    for first in range(0, len(steps), size):
        part = steps[first : first + size]
        mean = math.fsum(seconds[step] for step in part) / len(part)
        columns.append(Column(part[0], part[-1], mean, _phases(spent, seconds, part)))
    whole = math.fsum(seconds[step] for step in steps)
    return Timing(len(steps), whole, _phases(spent, seconds, steps), tuple(columns))


def _phases(
    spent: Mapping[str, Mapping[int, float]], seconds: Mapping[int, float], steps: Sequence[int]
) -> tuple[Phase, ...]:
    whole = math.fsum(seconds[step] for step in steps)
    totals = {name: math.fsum(of[step] for step in steps) for name, of in spent.items()}
    return tuple(Phase(name, total, total / whole if whole else 0.0) for name, total in totals.items())
