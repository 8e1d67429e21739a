"""Results of benchmarks as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from owlcap.evaluation.benchmarks.catalogue import KINDS
from owlcap.evaluation.benchmarks.values import BenchmarkResult, Interval, ItemScore
from owlcap.evaluation.rescoring import usage_line
from owlcap.evaluation.table import align

OVERALL = "all"
SHOWN_PROBLEMS = 3
GO_ON = "the same command goes on from here: what the judge has answered is kept and not asked again"
OTHER = {"ours": "official", "official": "ours"}


def result_text(result: BenchmarkResult) -> str:
    """Tables of the figures asked for and of the other ones, then what the figures rest on."""
    parts = [f"{result.benchmark} of {result.name}" + (f", judged by {result.judge}" if result.judge else "")]
    parts[0] += "" if result.is_complete else " (INCOMPLETE)"
    for headline, figures in figure_sets(result):
        title = {"ours": "our figures", "official": "figures as the published script computes them"}[headline]
        parts.append("\n".join([title, *align(figure_rows(result, figures, averaged(result, headline)))]))
    return "\n\n".join([*parts, "\n".join(facts(result))])


def figure_sets(result: BenchmarkResult) -> list[tuple[str, Mapping[str, Interval]]]:
    """The figures asked for, and the others where they differ in kind."""
    sets = [(result.headline, result.asked_for)]
    if result.figures != result.official:
        other = OTHER[result.headline]
        sets.append((other, result.official if other == "official" else result.figures))
    return sets


def averaged(result: BenchmarkResult, headline: str) -> list[ItemScore]:
    """The items that these figures are means of."""
    counts = KINDS[result.benchmark].official_counts
    return [score for score in result.scores if headline == "ours" or counts(score.values)]


def figure_rows(
    result: BenchmarkResult, figures: Mapping[str, Interval], scores: Sequence[ItemScore]
) -> list[tuple[str, ...]]:
    """A table: one row a group, all together, and one row a group of every split; or a row a figure without groups.

    Args:
        scores: what the figures are means of: they are counted in the last column.
    """
    sizes = Counter(score.group for score in scores)
    split_sizes = Counter(score.group for split in KINDS[result.benchmark].splits(scores) for score in split)
    by_group: dict[str, dict[str, Interval]] = {}
    for name, figure in figures.items():
        group, slash, short = name.rpartition("/")
        by_group.setdefault(group if slash else OVERALL, {})[short] = figure
    if list(by_group) == [OVERALL]:
        rows = [(name, show_interval(figure), str(len(scores))) for name, figure in figures.items()]
        return [("figure", "value", "n"), *rows]
    names = list(dict.fromkeys(short for members in by_group.values() for short in members))
    order = sorted(by_group, key=lambda group: (group in split_sizes, group == OVERALL))
    rows = [
        (
            group,
            *(show_interval(by_group[group].get(name)) for name in names),
            str(len(scores) if group == OVERALL else sizes[group] or split_sizes[group]),
        )
        for group in order
    ]
    return [("", *names, "n"), *rows]


def show_interval(figure: Interval | None) -> str:
    """A figure with its standard error: "0.512 ± 0.013"."""
    if figure is None or figure.value is None:
        return "-"
    return f"{figure.value:.3f}" + ("" if figure.standard_error is None else f" ± {figure.standard_error:.3f}")


def facts(result: BenchmarkResult) -> list[str]:
    """What the figures rest on, what is missing, and what was spent."""
    lines = [f"{len(result.scores)} of {result.num_cases} items have figures"]
    kind = KINDS[result.benchmark]
    if kind.official is not kind.figures and result.figures == result.official:
        lines.append("our figures and the published script's are the same here")
    if num_dropped := len(result.scores) - len(averaged(result, "official")):
        lines.append(f"the published script leaves {num_dropped} of them out of its means: accuracy or score 0")
    if result.missing:
        lines.append(f"INCOMPLETE: {len(result.missing)} without a text: {_some(result.missing)}")
    if result.failed:
        told = [f"{problem.id} ({problem.reason})" for problem in result.failed]
        lines.append(f"INCOMPLETE: {len(result.failed)} not judged, and left out: {_some(told)}")
        lines.append(GO_ON)
    lines += [f"INCOMPLETE, {note}" if note in result.notes_of_gaps else note for note in result.notes]
    lines.append("± is the standard error by bootstrap over items, within their groups")
    if result.judge:
        lines.append(usage_line(result.usage))
    return lines


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_PROBLEMS
    return ", ".join(names[:SHOWN_PROBLEMS]) + (f", and {more} more" if more > 0 else "")
