"""Caption reports as text tables: one report, or two side by side with the paired difference."""

from __future__ import annotations

from owlcap.errors import first_line
from owlcap.evaluation.report import CaptionReport, Figure, paired_difference


def render_table(report: CaptionReport, after: CaptionReport | None = None) -> str:
    """A plain-text table; with two reports: before, after, and after - before over the shared clips.

    Figures are means with standard errors over clips; n is the number of clips that have the figure.
    """
    if after is None:
        header = ("figure", report.name, "n")
        rows = [(name, show_figure(figure), str(figure.num_clips)) for name, figure in report.figures.items()]
        return "\n".join([*align([header, *rows]), count_line(report)])
    header = ("figure", report.name, after.name, "difference", "n")
    rows = []
    for name in dict.fromkeys([*report.figures, *after.figures]):
        first, second = report.figures.get(name), after.figures.get(name)
        shared = _shared_difference(report, after, name)
        difference = show_figure(shared, signed=True) if shared else "-"
        count = str(shared.num_clips) if shared else "0"
        rows.append((name, show_figure(first), show_figure(second), difference, count))
    return "\n".join([*align([header, *rows]), count_line(report), count_line(after)])


def show_figure(figure: Figure | None, *, signed: bool = False) -> str:
    """A mean and its standard error, "0.512 ± 0.013"; "-" where there is none."""
    if figure is None:
        return "-"
    mean = f"{figure.mean:+.3f}" if signed else f"{figure.mean:.3f}"
    return mean if figure.standard_error is None else f"{mean} ± {figure.standard_error:.3f}"


def _shared_difference(before: CaptionReport, after: CaptionReport, metric: str) -> Figure | None:
    """The paired difference, or None where no clip has the figure in both reports."""
    having = [{row.id for row in report.rows if metric in row.metrics} for report in (before, after)]
    return paired_difference(before, after, metric) if having[0] & having[1] else None


def align(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns padded to their widest cell, names to the left and numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return lines


def count_line(report: CaptionReport) -> str:
    """How many clips the figures rest on, and the first clips they do not, with the reasons."""
    line = (
        f"{report.name}: {report.num_scored} of {report.num_clips} clips scored, {report.num_failed} without caption, "
        f"{report.num_unscored} unscored"
    )
    reasons = [(problem.id, first_line(problem.reason)) for problem in (*report.failed, *report.unscored)]
    problems = [f"{id_} ({reason})" for id_, reason in reasons]
    if not problems:
        return line
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"{line}: {', '.join(problems[:3])}{more}"
