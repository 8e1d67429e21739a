"""`owlcap eval`: figures on held-out clips and on published benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from owlcap.cli.caption import EngineName
from owlcap.cli.console import check_out, progress_bar, say, stderr_console
from owlcap.errors import ConfigError

if TYPE_CHECKING:
    from owlcap.config import RewardsSection, RlRun
    from owlcap.evaluation.report import CaptionReport

INCOMPLETE = 1  # exit code: there are figures, but not of every item
JUDGE_CONFIG = "eval/judge"  # where no --config is given

app = typer.Typer(help="Measure captions on held-out clips and on published benchmarks.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(help="A .jsonl of {id, caption} rows, a model folder, or a server's address.")]
Annotations = Annotated[list[Path], typer.Argument(help="The benchmark's annotations.")]
Videos = Annotated[Path | None, typer.Option(help="The benchmark's videos, for a model or a server.")]
Config = Annotated[
    str | None, typer.Option(help="A rewards YAML or an RL configuration: the judge, and engines and video sampling.")
]
Override = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting that wins over it.")]
Official = Annotated[
    bool, typer.Option("--official", help="The published script's figures come first; both are shown.")
]
NumItems = Annotated[int | None, typer.Option(help="Only so many items, taken evenly.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="The longest text that a model makes.")]
ServedModel = Annotated[str | None, typer.Option(help="The model's name at the server, where it has several.")]
OutFolder = Annotated[Path | None, typer.Option(help="The folder for texts, result.json and index.html.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the files, say what judging would cost, and stop.")]


@app.command("captions")
def captions(
    source: Source,
    data: Annotated[Path, typer.Argument(help="The data set: JSONL with messages and videos.")],
    num_clips: Annotated[int | None, typer.Option(help="Only the first so many clips.")] = None,
    sampled: Annotated[bool, typer.Option("--sampled", help="Draw at temperature 1 instead of greedily.")] = False,
    num_completions: Annotated[int, typer.Option(help="Captions a clip when sampled; their mean counts.")] = 1,
    msd: Annotated[
        bool, typer.Option("--msd", help="Motion Synergetic Decoding, with the settings of motion.decoding.")
    ] = False,
    msd_engine: Annotated[EngineName, typer.Option(help="What decodes with --msd.")] = EngineName.transformers,
    config: Annotated[
        str | None, typer.Option(help="An RL configuration, for its rewards, video and cluster sections.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting that wins over --config.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the report here as JSON.")] = None,
    against: Annotated[Path | None, typer.Option(help="An earlier report to compare with, clip by clip.")] = None,
    served_model: ServedModel = None,
    text_metrics: Annotated[
        bool, typer.Option("--text-metrics", help="BLEU, METEOR, ROUGE and CIDEr too (pip install 'owlcap\\[eval]').")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """CSER and its parts by tag, length and repetition, with standard errors over clips; and caption metrics."""
    check_out(out)
    run = _rl_run(config, override or ())
    from owlcap.evaluation.run import plan_eval_captions, run_eval_captions

    if dry_run:
        counts = (num_clips, sampled, num_completions)
        say(plan_eval_captions(source, data, *counts, config=run))
        return

    if text_metrics:
        from owlcap.evaluation.benchmarks.coco import check_installed

        check_installed()  # before a model works
    tables: list[str] = []
    with progress_bar("captioning") as progress:
        report = run_eval_captions(
            source,
            data,
            num_clips=num_clips,
            sampled=sampled,
            num_completions=num_completions,
            msd=msd_engine.value if msd else None,
            served_model=served_model,
            config=run,
            out=out,
            against=against,
            show=tables.append,
            progress=progress,
        )
    say("\n".join(tables))  # after the bar has gone
    if text_metrics:
        _text_metrics(report, out)


def _rl_run(config: str | None, overrides: Sequence[str]) -> RlRun | None:
    """The configuration of --config with what --set changes; None without."""
    from owlcap.config import RlRun
    from owlcap.config_io import load_run

    if overrides and not config:
        raise ConfigError("--set changes a setting of --config, and there is none", cure="add --config toy_grpo")
    run = load_run(config, overrides) if config else None
    if run is not None and not isinstance(run, RlRun):
        raise ConfigError("evaluation takes its rewards from an RL configuration", where=config, allowed="kind: rl")
    return run


def _text_metrics(report: CaptionReport, out: Path | None) -> None:
    """Say the caption metrics of a report, and write them beside `out`."""
    from owlcap.evaluation.benchmarks.run import text_metrics_of, write_result
    from owlcap.evaluation.benchmarks.showing import result_text

    result = text_metrics_of(report)
    say("\n" + result_text(result))
    if out is not None:
        write_result(result, out.with_name(f"{out.stem}_text_metrics"))


@app.command("dream1k")
def dream1k(
    source: Source,
    annotations: Annotations,
    videos: Videos = None,
    config: Config = None,
    override: Override = None,
    official: Official = False,
    num_items: NumItems = None,
    max_new_tokens: MaxNewTokens = None,
    served_model: ServedModel = None,
    out: OutFolder = None,
    dry_run: DryRun = False,
) -> None:
    """DREAM-1K: recall and precision of events, F1, by subset (DREAM-1k.jsonl). Exit code 1: incomplete."""
    _benchmark(
        "dream1k",
        source,
        annotations,
        videos,
        config,
        override,
        official,
        num_items,
        max_new_tokens,
        served_model,
        out,
        dry_run,
    )


@app.command("vdc")
def vdc(
    source: Source,
    annotations: Annotations,
    videos: Videos = None,
    config: Config = None,
    override: Override = None,
    official: Official = False,
    num_items: NumItems = None,
    max_new_tokens: MaxNewTokens = None,
    served_model: ServedModel = None,
    out: OutFolder = None,
    dry_run: DryRun = False,
) -> None:
    """VDC: accuracy and score of questions answered from the caption, by category. Exit code 1: incomplete."""
    _benchmark(
        "vdc",
        source,
        annotations,
        videos,
        config,
        override,
        official,
        num_items,
        max_new_tokens,
        served_model,
        out,
        dry_run,
    )


@app.command("hmi-bench")
def hmi_bench(
    source: Source,
    annotations: Annotations,
    videos: Videos = None,
    config: Config = None,
    override: Override = None,
    num_items: NumItems = None,
    max_new_tokens: MaxNewTokens = None,
    served_model: ServedModel = None,
    out: OutFolder = None,
    dry_run: DryRun = False,
) -> None:
    """HMI-Bench: captions (HMI-Bench.json) or questions (HMI-Bench-QA.json). Exit code 1: incomplete."""
    _benchmark(
        "hmi-bench",
        source,
        annotations,
        videos,
        config,
        override,
        False,
        num_items,
        max_new_tokens,
        served_model,
        out,
        dry_run,
    )


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="A result: its folder, or a report of `owlcap eval captions`.")],
    second: Annotated[Path, typer.Argument(help="Another one of the same benchmark.")],
    official: Official = False,
    out: Annotated[Path | None, typer.Option(help="Also write the comparison here as JSON.")] = None,
) -> None:
    """Two results item by item: differences with standard errors by paired bootstrap."""
    from owlcap.evaluation.benchmarks.comparing import compare_results, comparison_text, told_apart
    from owlcap.evaluation.benchmarks.saving import load_result

    check_out(out)
    results = told_apart((load_result(first), load_result(second)), (first, second))
    comparison = compare_results(*results, official=official)
    say(comparison_text(comparison))
    if out is not None:
        comparison.write(out)


def _benchmark(
    name: str,
    source: str,
    annotations: list[Path],
    videos: Path | None,
    config: str | None,
    override: list[str] | None,
    official: bool,
    num_items: int | None,
    max_new_tokens: int | None,
    served_model: str | None,
    out: Path | None,
    dry_run: bool,
) -> None:
    from owlcap.evaluation.benchmarks.run import EvaluationPlan, run_benchmark
    from owlcap.evaluation.benchmarks.showing import GO_ON, result_text

    rewards, run = _settings(config, override or [])
    if out is not None:
        check_out(out / "result.json")
    plan = EvaluationPlan(
        benchmark=name,
        source=source,
        annotations=tuple(annotations),
        rewards=rewards,
        run=run,
        videos=videos,
        official=official,
        num_cases=num_items,
        max_new_tokens=max_new_tokens,
        served_model=served_model,
        out=out,
    )
    try:
        with progress_bar(name) as progress:
            result = run_benchmark(plan, dry_run=dry_run, say=say, progress=progress)
    except KeyboardInterrupt:
        stderr_console().print(f"stopped: {GO_ON}")
        raise
    if result is None:
        return
    say(result_text(result))
    if out is not None:
        say(f"written to {out / 'result.json'} and {out / 'index.html'}")
    if not result.is_complete:
        raise typer.Exit(INCOMPLETE)


def _settings(config: str | None, override: list[str]) -> tuple[RewardsSection, RlRun | None]:
    """The judge's settings, and the run where the configuration is one."""
    from owlcap.config import RlRun
    from owlcap.config_io import find_config, load_rewards, load_run, read_layers

    name = config or JUDGE_CONFIG
    if not any(layer.settings.get("kind") == "rl" for layer in read_layers(find_config(name))):
        return load_rewards(name, override), None
    run = load_run(name, override)
    assert isinstance(run, RlRun)
    return run.rewards, run
