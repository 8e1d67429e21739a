"""`owlcap eval`: figures on held-out clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from owlcap.cli.console import check_out, progress_bar, say
from owlcap.errors import ConfigError

app = typer.Typer(help="Measure captions on held-out clips.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `captions` a sub-command while it is the only one."""


@app.command("captions")
def captions(
    source: Annotated[str, typer.Argument(help="A model folder, or a .jsonl of {id, caption} rows.")],
    data: Annotated[Path, typer.Argument(help="The data set: JSONL with messages and videos.")],
    num_clips: Annotated[int | None, typer.Option(help="Only the first so many clips.")] = None,
    sampled: Annotated[bool, typer.Option("--sampled", help="Draw at temperature 1 instead of greedily.")] = False,
    num_completions: Annotated[int, typer.Option(help="Captions a clip when sampled; their mean counts.")] = 1,
    config: Annotated[
        str | None, typer.Option(help="An RL configuration, for its rewards, video and cluster sections.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting that wins over --config.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the report here as JSON.")] = None,
    against: Annotated[Path | None, typer.Option(help="An earlier report to compare with, clip by clip.")] = None,
) -> None:
    """CSER and its parts by tag, length and repetition, with standard errors over clips."""
    from owlcap.config import RlRun
    from owlcap.config_io import load_run

    check_out(out)
    run = load_run(config, override or ()) if config else None
    if run is not None and not isinstance(run, RlRun):
        raise ConfigError("evaluation takes its rewards from an RL configuration", where=config, allowed="kind: rl")
    if override and not config:
        raise ConfigError("--set changes a setting of --config, and there is none", cure="add --config toy_grpo")
    from owlcap.evaluation.run import run_eval_captions

    tables: list[str] = []
    with progress_bar("captioning") as progress:
        run_eval_captions(
            source,
            data,
            num_clips=num_clips,
            sampled=sampled,
            num_completions=num_completions,
            config=run,
            out=out,
            against=against,
            show=tables.append,
            progress=progress,
        )
    say("\n".join(tables))  # after the bar has gone
