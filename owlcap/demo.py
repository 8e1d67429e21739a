"""`owlcap demo`: the whole loop on toy videos, in one Ray session, ending in one before / after table.

    toy clips -> tiny base model -> SFT -> evaluate -> GRPO with CSER -> evaluate -> export

The folder holds everything: data/, base/, sft/ and grpo/ (run directories), export/, summary.json. A stage that is
complete in the folder is not done again, one that was cut off continues from its last checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from owlcap.config import RlRun, SftRun
from owlcap.config_io import load_run
from owlcap.data.rows import read_rows
from owlcap.data.toy import ToyWorld, make_toy_world
from owlcap.errors import ConfigError
from owlcap.evaluation.report import CaptionReport, load_report
from owlcap.evaluation.table import render_table
from owlcap.runs import RunDir

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How much of everything: the full demo, or the fast one."""

    num_train: int
    num_validation: int
    num_test: int
    warmup_steps: int  # of the tiny base model's vision tower
    sft_epochs: int
    rl_steps: int


FULL = DemoSize(num_train=5000, num_validation=128, num_test=300, warmup_steps=600, sft_epochs=3, rl_steps=140)
FAST = DemoSize(num_train=2400, num_validation=64, num_test=200, warmup_steps=350, sft_epochs=7, rl_steps=60)


@dataclass(frozen=True, slots=True)
class Summary:
    """One policy's held-out figures; `se` is the standard error over clips."""

    cser: float
    cser_se: float
    correctness: float
    completeness: float
    f1: float
    motion_f1: float
    detail_f1: float
    length: float
    num_clips: int

    @classmethod
    def of(cls, report: CaptionReport) -> Summary:
        """The demo's figures of an evaluation."""
        return cls(
            cser=report.mean("cser"),
            cser_se=report.figure("cser").standard_error or 0.0,
            correctness=report.mean("correctness"),
            completeness=report.mean("completeness"),
            f1=report.mean("f1"),
            motion_f1=report.mean("motion_f1"),
            detail_f1=report.mean("detail_f1"),
            length=report.mean("length_words"),
            num_clips=report.num_scored,
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage of the demo was called and how long it took."""

    name: str
    seconds: float


def run_demo(out: Path, fast: bool = False, seed: int = 0) -> Path:
    """Run the demo in `out`, print the table, and return the GRPO run's folder.

    Raises:
        ConfigError: `out` holds a demo of another size or seed.
        OwlcapError: a stage failed; run the same command again to continue from where it stopped.
    """
    from owlcap.evaluation.run_report import write_run_report
    from owlcap.training.cluster import start_ray

    out = out.absolute()
    size = FAST if fast else FULL
    claim(out, size, seed)
    stages: list[Stage] = []
    with _timed(stages, f"toy world: {size.num_train} training clips"):
        world = make_toy_world(
            out / "data",
            num_train=size.num_train,
            num_validation=size.num_validation,
            num_test=size.num_test,
            seed=seed,
            workers=2,
        )
    with _timed(stages, "tiny base model, vision tower warmed up on the training clips' facts"):
        _make_base(out, world, size, seed)
    sft, rl = demo_configs(out, size, seed)
    with start_ray(rl.cluster, out):
        with _timed(stages, "SFT on brief captions"):
            train_sft(sft)
        with _timed(stages, f"GRPO with CSER, {size.rl_steps} steps, with the evaluations before and after"):
            train_rl(rl)
    with _timed(stages, "export, reloaded and compared in transformers and vLLM"):
        serve_line = _export(out, world)
    write_summary(rl_run(rl), size.rl_steps, out / "summary.json", stages)
    console.print(f"report: {write_run_report(rl_run(rl).path).path}", soft_wrap=True)
    console.print(f"\nserve it: {serve_line}", soft_wrap=True)
    return rl_run(rl).path


def demo_configs(out: Path, size: DemoSize, seed: int) -> tuple[SftRun, RlRun]:
    """The demo's runs: configs/toy_sft.yaml and configs/toy_grpo.yaml in `out`, at a size."""
    shared = [f"run_dir={json.dumps(str(out))}", f"seed={seed}"]
    sft = load_run("toy_sft", [*shared, f"sft.num_epochs={size.sft_epochs}"])
    rl = load_run(
        "toy_grpo",
        [
            *shared,
            f"num_steps={size.rl_steps}",
            f"evaluation.every_steps={size.rl_steps}",
            f"evaluation.num_clips={size.num_test}",
            "evaluation.sampled=true",
        ],
    )
    assert isinstance(sft, SftRun)
    assert isinstance(rl, RlRun)
    return sft, rl


def train_sft(cfg: SftRun) -> Path:
    """The run's policy; trained, or continued, unless it is complete."""
    from sft.train import run_sft

    run = RunDir((Path(cfg.run_dir) / cfg.name).absolute())
    return run.model if run.model.exists() else run_sft(cfg, resume=run.config_file.exists())


def train_rl(cfg: RlRun) -> Path:
    """The run's policy; trained, or continued, unless it is complete."""
    from rl.trainer import run_rl

    run = rl_run(cfg)
    return run.model if run.model.exists() else run_rl(cfg, resume=run.config_file.exists())


def rl_run(cfg: RlRun) -> RunDir:
    """The run's folder."""
    return RunDir((Path(cfg.run_dir) / cfg.name).absolute())


def write_summary(run: RunDir, last_step: int, file: Path, stages: list[Stage]) -> None:
    """Print greedy and sampled tables of the evaluations before and after, and write the figures to `file`."""
    figures: dict[str, object] = {"run": str(run.path), "seconds": {stage.name: stage.seconds for stage in stages}}
    for sampled in (True, False):
        before, after = (load_report(run.evaluation_file(step, sampled=sampled)) for step in (0, last_step))
        console.print(f"\n{'sampled at temperature 1' if sampled else 'greedy'}, held-out clips")
        console.print(render_table(before, after), soft_wrap=True)
        summaries = {"before": asdict(Summary.of(before)), "after": asdict(Summary.of(after))}
        figures |= {"sampled": summaries} if sampled else summaries
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    temporary.replace(file)
    console.print(f"\nsummary: {file}", soft_wrap=True)


def claim(out: Path, size: DemoSize, seed: int) -> None:
    """Note what `out` is for, or check that it is for the same."""
    file = out / "demo.json"
    wanted = {"seed": seed, **asdict(size)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
            temporary.replace(file)
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the demo's folder cannot be written: {error.strerror or error}",
            where=str(out),
            cure="choose a folder that you can write to (--out, or make demo OUT=...)",
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"not the demo's own file: {error}", where=str(file), cure="delete it, or the folder"
        ) from error
    if found != wanted:
        raise ConfigError(
            "the folder holds a demo of another size or seed",
            where=f"{file}: {found}",
            allowed=str(wanted),
            cure="choose another folder (make demo OUT=...), or delete this one",
        )


def _make_base(out: Path, world: ToyWorld, size: DemoSize, seed: int) -> None:
    from owlcap.models.base import make_base

    cfg = load_run("toy_sft")
    report = make_base(out / "base", read_rows(world.train), cfg.video, seed, num_steps=size.warmup_steps)
    console.print(report.text(), soft_wrap=True)


def _export(out: Path, world: ToyWorld) -> str:
    """The exported folder's serve line; an export that is there already has passed its checks."""
    from owlcap.export import export
    from owlcap.export.serve import serve_arguments, serve_line

    folder = out / "export"
    if not folder.exists():
        report = export(out / "grpo", folder, name="owlcap-demo", sample=read_rows(world.test)[0])
        console.print(report.text(), soft_wrap=True)
        return report.serve_line
    return serve_line(serve_arguments(folder))


@contextmanager
def _timed(stages: list[Stage], name: str) -> Iterator[None]:
    console.print(f"[bold]{name}[/bold]")
    started = time.perf_counter()
    yield
    stages.append(Stage(name, time.perf_counter() - started))
    console.print(f"  {stages[-1].seconds:.1f} s")
