"""`owlcap data`: data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from owlcap.cli.console import progress_bar, say

app = typer.Typer(help="Make data sets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `toy` a sub-command while it is the only one."""


@app.command("toy")
def toy(
    out: Annotated[Path, typer.Argument(help="The folder to write.")] = Path("runs/toy/data"),
    num_train: Annotated[int, typer.Option(min=1, help="Training clips.")] = 2000,
    num_validation: Annotated[int, typer.Option(min=1, help="Validation clips.")] = 200,
    num_test: Annotated[int, typer.Option(min=1, help="Held-out test clips.")] = 400,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw clips.")] = 2,
    base: Annotated[
        Path | None, typer.Option(help="Also make the tiny base model here (vision warmed up on the training facts).")
    ] = None,
) -> None:
    """Short mp4 clips of people acting in simple scenes, with known facts and captions."""
    from owlcap.data.toy import make_toy_world

    with progress_bar("drawing clips") as progress:
        world = make_toy_world(
            out,
            num_train=num_train,
            num_validation=num_validation,
            num_test=num_test,
            seed=seed,
            workers=workers,
            progress=progress,
        )
    say(f"train: {world.train}\nvalidation: {world.validation}\ntest: {world.test}")
    if base is not None:
        from owlcap.config_io import load_run
        from owlcap.data.rows import read_rows
        from owlcap.models.base import make_base

        video = load_run("toy_sft").video
        with progress_bar("warming up the vision tower") as progress:
            report = make_base(base, read_rows(world.train), video, seed, progress=progress)
        say(report.text())
