"""`owlcap judge-check`: how good the configured judge is, on captions whose order of quality is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from owlcap.cli.console import check_out, progress_bar, say
from owlcap.errors import ConfigError


def judge_check(
    config: Annotated[str, typer.Argument(help="A rewards YAML, or an RL configuration (a file or a name).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that win over the file.")
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option("--set", help="A labelled set; without it the one that ships with owlcap.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Times that every caption is judged, to measure noise.")] = 2,
    num_rows: Annotated[int | None, typer.Option(help="Only so many rows, taken evenly from the set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the report here as JSON.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 when a limit is missed.")] = False,
) -> None:
    """Noise, side and length bias, agreement with a labelled set, and resistance to captions that talk to the judge."""
    import asyncio

    from owlcap.config_io import load_rewards
    from rewards.judge_check_run import check_judge
    from rewards.labelled import read_rows

    check_out(out)
    settings = load_rewards(config, overrides or ())
    for option, number in (("--repeats", repeats), ("--num-rows", num_rows)):
        if number is not None and number < 1:
            raise ConfigError(f"{option} is {number}", allowed="a whole number of at least 1")
    rows = read_rows(labelled)
    if not rows:
        raise ConfigError("the labelled set has no rows", where=str(labelled))
    if num_rows is not None and num_rows < len(rows):
        rows = [rows[place * len(rows) // num_rows] for place in range(num_rows)]
    with progress_bar("judging") as progress:
        report = asyncio.run(check_judge(settings, rows, repeats, progress))
    say(report.table())
    if out is not None:
        report.write(out)
    if strict and report.missed:
        raise typer.Exit(1)
