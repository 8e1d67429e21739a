"""`owlcap demo` and `owlcap doctor`: the whole loop, and whether this machine is ready for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from owlcap.cli.console import say


def demo(
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/demo, runs/demo-fast, runs/demo-seed1 and so on.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="The same with less data and fewer steps.")] = False,
    seed: Annotated[int, typer.Option(help="Of the world, the model and the training.")] = 0,
) -> None:
    """Toy clips through SFT, evaluation, GRPO, evaluation and export, ending in one table."""
    name = "demo" + ("-fast" if fast else "") + (f"-seed{seed}" if seed else "")
    from owlcap.demo import run_demo

    say(f"run: {run_demo(out or Path('runs') / name, fast, seed)}")


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Without importing torch, vLLM and the like.")] = False,
) -> None:
    """Check the environment: packages, versions, imports, GPUs, video decoding, disk."""
    from owlcap.doctor import examine, render

    findings = examine(quick=quick)
    say(render(findings))
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)
