"""The command tree, and the one boundary at which errors meant for users become text.

owlcap
├── data toy        toy clips with known facts (and the tiny base model)
├── data import     other projects' formats; data export: for ms-swift and verl; data check: rows, prompts, leaks
├── data fuse       captions with motion and detail; data examine: verified; data hmi: human motion and questions
├── sft, rl         training, from a YAML and key=value overrides
├── eval captions   figures of a model or of captions in a file
├── eval dream1k, vdc, hmi-bench, compare   published benchmarks, and two results side by side
├── report          a run as one HTML file
├── score           saved captions scored by any reward, without training
├── serve-rewards   rewards over HTTP, for other training systems
├── judge-check     how good the configured judge is
├── cache           the judges' replies that are kept on this machine
├── model           a motion merger for a checkpoint
├── motion          key frames of videos with a body drawn over the person
├── export          a Hugging Face folder, checked in transformers and vLLM
├── caption         one video; --msd by both branches of the motion pathway
├── demo            all of the above on toy videos
└── doctor          is this machine ready?
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from owlcap.cli import (
    cache,
    caption,
    data,
    evaluate,
    judge,
    model,
    motion,
    report,
    rewards,
    serve_rewards,
    training,
    whole,
)
from owlcap.cli.console import show_error
from owlcap.errors import OwlcapError

EXIT_USER_ERROR = 2

app = typer.Typer(
    name="owlcap",
    help="Post-train video-captioning models: SFT, GRPO with CSER, evaluation, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_debug = False


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"owlcap {version('owlcap')}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    from owlcap.logging import setup_logging

    global _debug
    _debug = debug
    setup_logging("WARNING")  # training says more, and into its run's folder


app.add_typer(data.app, name="data")
app.command("sft")(training.sft)
app.command("rl")(training.rl)
app.add_typer(evaluate.app, name="eval")
app.command("report")(report.report)
app.command("score")(rewards.score)
app.command("compare")(rewards.compare)
app.command("judge-check")(judge.judge_check)
app.command("serve-rewards")(serve_rewards.serve_rewards)
app.add_typer(cache.app, name="cache")
app.add_typer(model.app, name="model")
app.add_typer(motion.app, name="motion")
app.command("export")(model.export)
app.command("caption")(caption.caption)
app.command("demo")(whole.demo)
app.command("doctor")(whole.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; `arguments` default to those of the process.

    A user's error ends the process with exit code 2 and its message on stderr; with `--debug` its traceback
    comes first. Any other error is a fault of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets a question mark for it
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Threads that wait for each other by spinning stand still on a machine whose cores are also used by others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    try:
        app(args=list(arguments) if arguments is not None else None)
    except OwlcapError as error:
        if _debug:
            traceback.print_exc()
        show_error(error)
        sys.exit(EXIT_USER_ERROR)
