"""`owlcap motion`: key frames of videos with a body drawn over the person."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from owlcap.cli.console import check_out, progress_bar, say
from owlcap.errors import ConfigError, OwlcapError

if TYPE_CHECKING:
    from motion.extract import MotionFailure

app = typer.Typer(help="Key frames with a body drawn over the person (the motion pathway).", no_args_is_help=True)
NO_VIDEO = "\n"  # of a row that could not be read; in no reason
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Motion settings that win over the file.", show_default=False),
]
Config = Annotated[
    str | None, typer.Option(help="A run's configuration or a YAML with motion settings; without it the defaults.")
]


@app.command("extract")
def extract(
    data: Annotated[Path, typer.Argument(help="A data file (JSONL).", show_default=False)],
    overrides: Overrides = None,
    config: Config = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the data file with its overlays here; without it DATA.motion.jsonl.")
    ] = None,
) -> None:
    """Find poses in every clip of a data set, choose key frames and draw the body on them.

    Rows need no captions. What was done before is found in the cache. Exit code 1: some clips failed, or rows
    could not be read; they are listed, and in OUT.failures.jsonl.
    """
    from owlcap.config import ClusterSection
    from owlcap.config_io import load_motion

    target = out or data.with_suffix(".motion.jsonl")
    check_out(target)
    motion = load_motion(config, overrides or ())
    _check_packages()
    from motion.cache import MotionCache
    from motion.dataset import extract_data, read_clips, write_failures, write_with_overlays
    from owlcap.training.cluster import start_ray
    from owlcap.training.interrupt import ends_on_signals

    clips, bad = read_clips(data)
    kept = f"clips that are done stay in {MotionCache(motion).root}; the same command goes on from there"
    with ends_on_signals(kept) as stop, start_ray(ClusterSection()), progress_bar("extracting") as progress:
        stop.arm()
        report = extract_data(list(clips.values()), motion, progress).with_failures(bad)
    write_with_overlays(data, report, clips, target)
    for line in report.summary():
        say(line)
    say(f"data with overlays: {target}")
    if report.failures:
        listed = target.with_suffix(".failures.jsonl")
        write_failures(report, listed)
        for line in failure_lines(report.failures):
            say(line)
        say(f"failures: {listed}")
        raise typer.Exit(1)


@app.command("show")
def show(
    video: Annotated[Path, typer.Argument(help="A video file.", show_default=False)],
    overrides: Overrides = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="The picture to write; without it VIDEO.motion.png here.")] = None,
) -> None:
    """Write one picture of what the motion pathway makes of a video: key frames, key points, overlays."""
    from owlcap.config_io import load_motion

    if video.suffix == ".jsonl":
        raise ConfigError(
            "this is a data file: `show` takes a video",
            where=str(video),
            cure=f"owlcap motion extract {video}, or name one of its videos",
        )
    target = out or Path(f"{video.stem}.motion.png")
    check_out(target)
    motion = load_motion(config, overrides or ())
    _check_packages()
    from motion.contact_sheet import show_video

    say(f"{show_video(video, motion, target)}\npicture: {target}")


def _check_packages() -> None:
    if find_spec("roma") is None:
        raise ConfigError("the motion pathway needs the package roma", cure="pip install 'owlcap[motion]'")


def failure_lines(failures: Sequence[MotionFailure]) -> list[str]:
    """How many clips failed, and why: each reason once, with a few of its clips."""
    from owlcap.data.pipeline.reasons import group_reasons, reason_of

    told = [(f.sample.id, reason_of(OwlcapError(f.reason), f.sample.video or NO_VIDEO)) for f in failures]
    return [f"{len(failures)} failed", *(f"  {reason.text()}" for reason in group_reasons(told))]
