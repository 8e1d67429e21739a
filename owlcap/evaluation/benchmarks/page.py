"""The HTML page of a benchmark's result, or of a comparison of two: one file, no server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from owlcap.evaluation.benchmarks.showing import averaged, facts, figure_rows, figure_sets
from owlcap.evaluation.benchmarks.values import BenchmarkResult, ItemScore
from owlcap.evaluation.pages import environment, render_page

SHOWN_ITEMS = 200  # of the lowest values first: a page of thousands would not open
TITLES = {"ours": "Our figures", "official": "Figures as the published script computes them"}


@dataclass(frozen=True, slots=True)
class ShownItem:
    """One item of the page."""

    score: ItemScore
    values: str
    order: float


def result_page(result: BenchmarkResult) -> str:
    """The page as HTML."""
    tables = [
        (TITLES[headline], figure_rows(result, figures, averaged(result, headline)))
        for headline, figures in figure_sets(result)
    ]
    items = sorted((_shown(score) for score in result.scores), key=lambda item: (item.order, item.score.id))
    context = {
        "result": result,
        "tables": tables,
        "problems": [line for line in facts(result) if line.startswith("INCOMPLETE")],
        "facts": [line for line in facts(result) if not line.startswith("INCOMPLETE")],
        "items": items[:SHOWN_ITEMS],
        "num_hidden": max(0, len(items) - SHOWN_ITEMS),
    }
    return render_page(environment(Path(__file__).parent), "result", context)


def _shown(score: ItemScore) -> ShownItem:
    """Counts that figures are made of ("bleu.guess1") are not shown."""
    plain = {name: value for name, value in score.values.items() if "." not in name and not math.isnan(value)}
    return ShownItem(score, ", ".join(f"{name} {value:.3g}" for name, value in plain.items()), _order(score))


def _order(score: ItemScore) -> float:
    """Low where the text did badly: entailed events, accuracy, or the mean of the ratings."""
    values = score.values
    if "reference_events" in values:
        events = values["reference_events"] + values["caption_events"]
        return (values["reference_entailed"] + values["caption_entailed"]) / events if events else 1.0
    for name in ("accuracy", "correct", "cider"):
        if name in values and "details" not in values:
            return values[name]
    ratings = [value for name, value in values.items() if "." not in name]
    return math.fsum(ratings) / len(ratings) if ratings else 0.0
