"""What a benchmark asks, what it found, and the result of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from owlcap.evaluation.report import ClipProblem
from rewards.chat import ChatModel, Usage

Columns = Mapping[str, Mapping[str, np.ndarray]]
"""Values of a benchmark's items: group -> name -> float64 [items of the group]; NaN where an item has no such value."""

Figures = Mapping[str, float | None]
"""Figures by name; those of one group are "group/figure". None where a figure cannot be computed."""

Compute = Callable[[Columns], Figures]
"""How a benchmark's values become its figures."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that a benchmark asks of a model: a text about a video.

    `id` is the benchmark's own. `group` is the subset or category whose items are averaged together first.
    `video` is the name of the file, with or without its ending, inside the folder of videos. A text that is given for
    `shared_id` stands for every case with it (one caption for all categories of VDC).
    """

    id: str
    group: str
    video: str
    prompt: str
    reference: str
    shared_id: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that was checked in a text, and what was found."""

    text: str
    verdict: str


@dataclass(frozen=True, slots=True)
class ItemScore:
    """The values of one case's text, with what they rest on."""

    id: str
    group: str
    values: Mapping[str, float]
    text: str
    reference: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """What judging takes at most, when nothing is in the cache and nothing is tried again."""

    num_calls: int = 0
    num_characters: int = 0  # of all prompts
    output_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.num_calls + other.num_calls,
            self.num_characters + other.num_characters,
            self.output_tokens + other.output_tokens,
        )


C = TypeVar("C", bound=Case, contravariant=True)


class Benchmark(Protocol[C]):
    """One benchmark: how a text is judged, and how values become figures."""

    name: str

    def cost(self, case: C, text: str) -> Cost:
        """Of judging this text."""
        ...

    async def judge(self, model: ChatModel, case: C, text: str) -> ItemScore:
        """The text's values.

        Raises:
            JudgeError: the model cannot be reached or read; the item is then left out and counted.
        """
        ...

    def finish(self, scores: Sequence[ItemScore]) -> tuple[Sequence[ItemScore], Sequence[str]]:
        """Values that need all texts at once are added here; with notes for the report."""
        ...


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its standard error and the middle 95 % of its bootstrap distribution; None where not computed."""

    value: float | None
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """One run of a benchmark.

    `figures` are ours; `official` are those of the published script on the same judge replies. `headline` says which
    of the two the run was asked for. Items without figures are in `missing` (no text given) and `failed` (not judged).
    """

    benchmark: str
    name: str
    headline: str  # "ours" or "official"
    judge: str
    num_cases: int
    figures: Mapping[str, Interval]
    official: Mapping[str, Interval]
    scores: tuple[ItemScore, ...]
    missing: tuple[str, ...] = ()
    failed: tuple[ClipProblem, ...] = ()
    notes: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)

    @property
    def is_complete(self) -> bool:
        """Whether every case of the annotations has its figures."""
        return not self.missing and not self.failed and not self.notes_of_gaps

    @property
    def notes_of_gaps(self) -> tuple[str, ...]:
        """Notes that say that a part of the benchmark is absent."""
        return tuple(note for note in self.notes if note.startswith("absent: "))

    @property
    def asked_for(self) -> Mapping[str, Interval]:
        """The figures that the run was asked for."""
        return self.official if self.headline == "official" else self.figures
