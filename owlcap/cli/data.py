"""`owlcap data`: data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from owlcap.cli.console import check_out, progress_bar, say
from owlcap.errors import ConfigError

PROBLEMS_FOUND = 1  # exit code: the work is done, and some rows need a look

app = typer.Typer(help="Make, convert and check data sets.", no_args_is_help=True)


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


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A file or folder of another project's data.")],
    out: Annotated[Path, typer.Argument(help="The JSONL to write.")],
    format: Annotated[str, typer.Option(help="auto, owlcap, swift, sharegpt, llava, trl, hf or webdataset.")] = "auto",
    video_root: Annotated[
        Path | None, typer.Option(help="Where relative video paths start; default: the folder of their file.")
    ] = None,
    check_videos: Annotated[bool, typer.Option(help="A row whose video is not there is a problem.")] = True,
) -> None:
    """Rows of another project's format, as JSONL of ours. Rows that cannot be taken over are kept beside it."""
    from owlcap.data.importing import import_data

    check_out(out)
    report = import_data(source, out, format=format, video_root=video_root, check_files=check_videos)
    say(report.text())
    if report.problems:
        raise typer.Exit(PROBLEMS_FOUND)


@app.command("export")
def export(
    data: Annotated[Path, typer.Argument(help="The data set: JSONL with messages and videos.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .jsonl for swift, .parquet for verl.")],
    format: Annotated[str, typer.Option(help="swift or verl.")],
    target: Annotated[str, typer.Option(help="The answer: the assistant message, or a name under captions.")] = (
        "messages"
    ),
    reference: Annotated[str, typer.Option(help="What rewards compare with: reference, or a name.")] = "reference",
) -> None:
    """Our rows for ms-swift or verl, with absolute video paths."""
    from owlcap.config import DataSection
    from owlcap.data.exporting import export_data

    check_out(out)
    section = DataSection(train=str(data), target=target, reference=reference)
    say(export_data(data, out, format, section).text())


@app.command("check")
def check(
    data: Annotated[Path, typer.Argument(help="The data set: JSONL with messages and videos.")],
    config: Annotated[
        str | None, typer.Option(help="A run's configuration, for its data and video sections and its model.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting that wins over --config.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder, to render prompts with; default: that of --config.")
    ] = None,
    against: Annotated[list[Path] | None, typer.Option(help="Another split, which must share no row.")] = None,
    benchmark: Annotated[
        list[Path] | None, typer.Option(help="A benchmark's annotations or video folder: none of it may be in DATA.")
    ] = None,
) -> None:
    """Open every row and video; the exact prompt with its tokens; duplicates and leaks. Exit code 1: problems."""
    from owlcap.config import DataSection, VideoSection
    from owlcap.config_io import load_run
    from owlcap.data.checking import check_data

    run = load_run(config, override or ()) if config else None
    if override and not config:
        raise ConfigError("--set changes a setting of --config, and there is none", cure="add --config toy_grpo")
    folder = model or (Path(run.model.path) if run is not None else None)
    video = run.video if run is not None else VideoSection()
    processor = None
    if folder is not None:
        from owlcap.models.load import load_processor

        processor = load_processor(folder, video)
    with progress_bar("opening videos") as progress:
        report = check_data(
            data,
            run.data if run is not None else DataSection(train=str(data)),
            video,
            motion=run.motion if run is not None else None,
            processor=processor,
            against=against or (),
            benchmarks=benchmark or (),
            progress=progress,
        )
    say(report.text())
    if not report.is_clean:
        raise typer.Exit(PROBLEMS_FOUND)


Config = Annotated[str | None, typer.Option(help="A YAML of the pipelines' settings, e.g. data/qwen.")]
Override = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; wins over --config.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the files, say what asking models would cost, and stop.")
]


@app.command("fuse")
def fuse(
    clips: Annotated[Path, typer.Argument(help="A folder of videos, or a JSONL whose rows name one each.")],
    out: Annotated[Path, typer.Argument(help="The folder to write, or to continue.")],
    config: Config = None,
    override: Override = None,
    video_root: Annotated[Path | None, typer.Option(help="Where relative video paths start.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Motion-Detail Fusion: a motion caption of each clip, completed with details by a general model."""
    from owlcap.config_io import load_data_run
    from owlcap.data.hmd.fusion import fuse
    from owlcap.data.pipeline.clips import read_clips
    from owlcap.data.pipeline.output import done_text

    run = load_data_run(config, override or ())
    with progress_bar("captioning") as progress:
        made = fuse(read_clips(clips, video_root), out, run, progress, say=say, dry_run=dry_run)
    if made is None:
        return
    done, path = made
    say(f"{done_text(done)}\nwritten   {path}")
    if done.failures:
        raise typer.Exit(PROBLEMS_FOUND)


@app.command("examine")
def examine(
    fused: Annotated[Path, typer.Argument(help="The folder or file that owlcap data fuse wrote.")],
    out: Annotated[Path, typer.Argument(help="The folder to write, or to continue.")],
    config: Config = None,
    override: Override = None,
    dry_run: DryRun = False,
) -> None:
    """Fine-Grained Examination: keep the captions whose units the video supports; report and data card."""
    from owlcap.config_io import load_data_run
    from owlcap.data.hmd.examination import examine

    run = load_data_run(config, override or ())
    with progress_bar("verifying") as progress:
        report = examine(fused, out, run, progress, say=say, dry_run=dry_run)
    if report is None:
        return
    say(f"{report.text()}\nwritten     {out / 'train.jsonl'}")
    if report.num_failed:
        raise typer.Exit(PROBLEMS_FOUND)


@app.command("hmi")
def hmi(
    clips: Annotated[Path, typer.Argument(help="A folder of videos, or a JSONL whose rows name one each.")],
    out: Annotated[Path, typer.Argument(help="The folder to write, or to continue.")],
    config: Config = None,
    override: Override = None,
    video_root: Annotated[Path | None, typer.Option(help="Where relative video paths start.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Human motion data: segments of one person who moves, captions on three levels, questions; report and card."""
    from owlcap.config_io import load_data_run
    from owlcap.data.hmi.pipeline import make_hmi
    from owlcap.data.pipeline.clips import read_clips

    run = load_data_run(config, override or ())
    with progress_bar("clips") as progress:
        report = make_hmi(read_clips(clips, video_root), out, run, progress, say=say, dry_run=dry_run)
    if report is None:
        return
    say(f"{report.text()}\nwritten     {out / 'train.jsonl'}")
    if report.num_videos_failed or report.num_failed:
        raise typer.Exit(PROBLEMS_FOUND)
