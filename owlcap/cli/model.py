"""`owlcap export` and `owlcap caption`: what a trained policy is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from owlcap.cli.console import say


def export(
    source: Annotated[Path, typer.Argument(help="A run's folder, one of its checkpoints, or a model folder.")],
    out: Annotated[Path, typer.Argument(help="The Hugging Face folder to write.")],
) -> None:
    """Write a Hugging Face folder, check it in transformers and vLLM, print the line that serves it."""
    from owlcap.export import export as export_policy

    export_policy(source, out, show=say)


def caption(
    model: Annotated[Path, typer.Argument(help="A model folder, such as an exported one.")],
    video: Annotated[Path, typer.Argument(help="A video file.")],
    prompt: Annotated[str | None, typer.Option(help="What to ask instead of the prompt it was trained with.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest caption, in tokens.")] = 1024,
) -> None:
    """Caption one video, greedily."""
    from owlcap.inference import caption_video

    say(caption_video(model, video, prompt=prompt, max_new_tokens=max_new_tokens))
