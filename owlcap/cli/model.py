"""`owlcap export`, what a trained policy is for; `owlcap model`, checkpoints."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from owlcap.cli.console import say

app = typer.Typer(help="Change checkpoints.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `add-motion` a sub-command while it is the only one."""


@app.command("add-motion")
def add_motion(
    checkpoint: Annotated[str, typer.Argument(help="A plain Qwen2.5-VL folder, or its name on the Hub.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not exist yet.")],
) -> None:
    """Give a Qwen2.5-VL checkpoint a motion merger (a copy of its merger), for runs with motion.enabled=true."""
    from owlcap.models.macm import add_motion as write

    say(f"model: {write(checkpoint, out)}")


class DtypeName(StrEnum):
    """Precision of exported weights."""

    fp32 = "fp32"
    bf16 = "bf16"


def export(
    source: Annotated[Path, typer.Argument(help="A run's folder, one of its checkpoints, or a model folder.")],
    out: Annotated[Path, typer.Argument(help="The Hugging Face folder to write; it must not exist yet.")],
    name: Annotated[str | None, typer.Option(help="What it is called when served; else the folder's name.")] = None,
    dtype: Annotated[DtypeName | None, typer.Option(help="Precision of the weights; else the source's.")] = None,
    prompt: Annotated[str | None, typer.Option(help="The policy's question; else the one it was trained with.")] = None,
) -> None:
    """Write a Hugging Face folder, check it in transformers and vLLM, print the line that serves it."""
    from owlcap.export import export as export_policy

    export_policy(source, out, name=name, dtype=dtype.value if dtype else None, prompt=prompt, show=say)
