"""`owlcap report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from owlcap.cli.console import check_out, progress_bar, say, stderr_console

if TYPE_CHECKING:
    from owlcap.evaluation.run_report import ReportOptions


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder: run_dir/name of its configuration.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The file to write; else report.html in the run's folder.")] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="1,50,100-120", help="Steps whose captions are shown; else --num-steps.")
    ] = None,
    num_steps: Annotated[int, typer.Option(min=1, help="So many steps at even distances.")] = 12,
    groups: Annotated[
        int, typer.Option(min=1, help="Groups a step at most: best, worst, widest, odd ones, others.")
    ] = 4,
    frames: Annotated[bool, typer.Option(help="Show a few frames of each clip.")] = True,
    max_mib: Annotated[float, typer.Option(min=0.1, help="Size of all groups in the page, in MiB.")] = 8.0,
) -> None:
    """Write one HTML file: curves, captions with their units marked, judgements, time, settings."""
    from owlcap.evaluation.run_report import ReportOptions, parse_steps

    check_out(out)
    wanted = parse_steps(steps) if steps is not None else None
    say(write_and_tell(run, out, ReportOptions(wanted, num_steps, groups, frames, max_mib)))


def write_and_tell(run: Path, out: Path | None = None, options: ReportOptions | None = None) -> str:
    """Write the report, say on stderr what is missing or broken in the run, and return a line about the file."""
    from owlcap.evaluation.run_report import write_run_report

    with progress_bar("reading captions") as progress:
        written = write_run_report(run, out, options, progress)
    for problem in written.problems:
        stderr_console().print(f"note: {problem}", markup=False)
    return f"report: {written.path} ({written.path.stat().st_size / 2**20:.1f} MiB)"
