"""What GRPO gains in the demo, over seeds, beside two controls that spend their time on more SFT.

    python benchmarks/demo_gain.py OUT [--fast] [--seeds 0 1 2] [--no-controls]

Runs `owlcap demo` in OUT/seed-N for each seed (complete runs are kept), and from the same clips and base model:

- `sft continued`: the demo's SFT model trained on brief captions for as many seconds as GRPO took;
- `sft without omission`: the base model trained on the full captions, which is what GRPO's reference captions tell.

All are evaluated on the same held-out test clips, greedily and sampled at temperature 1. Prints tables (Markdown)
and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from owlcap.config import RlRun, SftRun
from owlcap.demo import FAST, FULL, DemoSize, demo_configs, rl_run, train_sft
from owlcap.evaluation.report import CaptionReport, load_report, paired_difference
from owlcap.evaluation.run import run_eval_captions
from owlcap.metrics import read_metrics
from owlcap.runs import RunDir
from owlcap.training.cluster import start_ray

METRICS = ("cser", "correctness", "completeness", "f1", "motion_f1", "detail_f1", "length_words")
CONTROLS = ("sft continued", "sft without omission")
MODES = ("greedy", "sampled")


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-controls", action="store_true")
    arguments = parser.parse_args()
    size = FAST if arguments.fast else FULL
    policies = ("sft", "grpo") if arguments.no_controls else ("sft", "grpo", *CONTROLS)
    seeds = [run_seed(arguments.out.absolute() / f"seed-{seed}", size, seed, policies) for seed in arguments.seeds]
    figures = {}
    for mode in MODES:
        sys.stdout.write(f"\n{mode}\n\n{means_table(seeds, policies, mode)}\n\n{gains_table(seeds, arguments, mode)}\n")
        figures[mode] = {
            str(seed): {policy: {m: reports[policy, mode].mean(m) for m in METRICS} for policy in policies}
            | {"gain_in_standard_errors": in_errors(reports["sft", mode], reports["grpo", mode], "cser")}
            for seed, reports in zip(arguments.seeds, seeds, strict=True)
        }
    sys.stdout.write("\n" + json.dumps(figures) + "\n")


Reports = dict[tuple[str, str], CaptionReport]


def run_seed(out: Path, size: DemoSize, seed: int, policies: Sequence[str]) -> Reports:
    """The demo and the controls of one seed: a report for every policy and mode."""
    command = [sys.executable, "-m", "owlcap", "demo", "--out", str(out), "--seed", str(seed)]
    subprocess.run([*command, *(["--fast"] if size is FAST else [])], check=True, stdout=sys.stderr)
    sft, rl = demo_configs(out, size, seed)
    run = rl_run(rl)
    reports = {
        (policy, mode): load_report(run.evaluation_file(step, sampled=mode == "sampled"))
        for policy, step in (("sft", 0), ("grpo", size.rl_steps))
        for mode in MODES
    }
    for control in CONTROLS:
        if control in policies:
            reports |= evaluate_control(control, control_config(control, sft, rl), rl)
    return reports


def control_config(control: str, sft: SftRun, rl: RlRun) -> SftRun:
    """The SFT run of a control."""
    if control == "sft without omission":
        return sft.model_copy(update={"name": "sft_full", "data": sft.data.model_copy(update={"target": "full"})})
    grpo_s = sum(row.get("seconds/step") or 0.0 for row in read_metrics(rl_run(rl)))
    sft_run = RunDir((Path(sft.run_dir) / sft.name).absolute())
    step_s = statistics.median(filter(None, (row.get("seconds/step") for row in read_metrics(sft_run))))
    return sft.model_copy(
        update={
            "name": "sft_continued",
            "model": sft.model.model_copy(update={"path": rl.model.path}),
            "sft": sft.sft.model_copy(update={"num_epochs": 100, "max_steps": round(grpo_s / step_s)}),
        }
    )


def evaluate_control(control: str, cfg: SftRun, rl: RlRun) -> Reports:
    """Train a control and evaluate it on the demo's test clips."""
    assert rl.evaluation.data is not None
    run = RunDir((Path(cfg.run_dir) / cfg.name).absolute())
    reports: Reports = {}
    with start_ray(rl.cluster, run.path):
        model = train_sft(cfg)
        for mode in MODES:
            file = run.path / f"evaluation_{mode}.json"
            if not file.exists():
                run_eval_captions(
                    model,
                    rl.evaluation.data,
                    num_clips=rl.evaluation.num_clips,
                    sampled=mode == "sampled",
                    config=rl,
                    out=file,
                )
            reports[control, mode] = load_report(file)
    return reports


def means_table(seeds: Sequence[Reports], policies: Sequence[str], mode: str) -> str:
    """Each policy's figures: the mean over seeds and, in brackets, the standard error over seeds."""
    lines = ["| policy | " + " | ".join(METRICS) + " |", "| --- |" + " --- |" * len(METRICS)]
    for policy in policies:
        cells = []
        for metric in METRICS:
            values = [reports[policy, mode].mean(metric) for reports in seeds]
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.3f} ({error:.3f})")
        lines.append(f"| {policy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gains_table(seeds: Sequence[Reports], arguments: argparse.Namespace, mode: str) -> str:
    """What GRPO gained over its SFT model, seed by seed: paired difference and its standard error over clips."""
    metrics = ("cser", "motion_f1", "detail_f1")
    lines = ["| seed | clips | " + " | ".join(metrics) + " | cser gain in standard errors |"]
    lines.append("| --- |" + " --- |" * (len(metrics) + 2))
    for seed, reports in zip(arguments.seeds, seeds, strict=True):
        before, after = reports["sft", mode], reports["grpo", mode]
        gains = [paired_difference(before, after, metric) for metric in metrics]
        cells = [f"{gain.mean:+.3f} ± {gain.standard_error or 0:.3f}" for gain in gains]
        errors = in_errors(before, after, "cser")
        lines.append(f"| {seed} | {after.num_scored} | " + " | ".join(cells) + f" | {errors:.1f} |")
    return "\n".join(lines)


def in_errors(before: CaptionReport, after: CaptionReport, metric: str) -> float:
    """The paired difference over its standard error."""
    gain = paired_difference(before, after, metric)
    return gain.mean / (gain.standard_error or float("nan"))


if __name__ == "__main__":
    main()
