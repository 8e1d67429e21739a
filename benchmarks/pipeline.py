"""A step's time with a slow judge: pipeline.mode sync, overlap and async with ahead 1 and 2.

    python benchmarks/pipeline.py [--steps 8] [--delay 0.5-1.5]

The real loop on a tiny random Qwen2.5-VL and toy clips: one vLLM engine that samples 8 captions at a time, one learner
rank, one reward actor; 8 prompts a step, 8 captions each. Rewards are joint CSER by tools/judge_server.py, each reply
after --delay seconds at random, with as many calls in flight as there are captions in a step. Each variant runs in a
process of its own; its first two steps are left out.

Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

VARIANTS = {"sync": 1, "overlap": 1, "async 1": 1, "async 2": 2}  # pipeline.ahead
SERVER = Path(__file__).parents[1] / "tools" / "judge_server.py"
WARM_UP = 2  # steps
PROMPTS, GROUP_SIZE = 8, 8


def main() -> None:
    """Measure every variant, or one of them in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--delay", default="0.5-1.5", help="seconds of the judge's replies")
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--world")
    arguments = parser.parse_args()
    if arguments.variant:
        train(Path(arguments.world), arguments.variant, arguments.steps, arguments.delay)
        return
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        figures = [measure(world, variant, arguments.steps, arguments.delay) for variant in VARIANTS]
    slowest = figures[0]["step_s"]
    print(
        "| pipeline | s/step | faster | generate | judge, after generation | update | sync | driver waits | staleness |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for f in figures:
        print(
            f"| {f['variant']} | {f['step_s']:.2f} | {slowest / f['step_s']:.2f}x | {f['generate_s']:.2f} | "
            f"{f['judge_s']:.2f} | {f['update_s']:.2f} | {f['sync_s']:.2f} | {f['waits_s']:.2f} | {f['staleness']:g} |"
        )
    print(json.dumps({"benchmark": "pipeline", "steps": arguments.steps, "delay": arguments.delay, "figures": figures}))


def make_world(root: Path) -> Path:
    """Toy clips and a random policy with their vocabulary."""
    from owlcap.data.rows import read_rows
    from owlcap.data.toy.world import make_toy_world
    from owlcap.models.tiny import make_tiny_model

    toy = make_toy_world(root / "data", num_train=64, num_validation=4, num_test=4, seed=1, workers=2, progress=None)
    texts = [text for row in read_rows(toy.train) for text in (row.caption, row.reference)]
    make_tiny_model(root / "model", texts, seed=0)
    return root


def measure(world: Path, variant: str, steps: int, delay: str) -> dict[str, float | str]:
    """Figures of one variant, from its run's metrics."""
    command = [sys.executable, __file__, "--variant", variant, "--world", str(world), "--steps", str(steps)]
    subprocess.run([*command, "--delay", delay], check=True, stdout=sys.stderr)
    rows = [
        json.loads(line) for line in (world / variant.replace(" ", "-") / "metrics.jsonl").read_text().splitlines()
    ][WARM_UP:]

    def mean(name: str) -> float:
        return statistics.fmean(row[name] for row in rows)

    return {
        "variant": variant,
        "step_s": mean("seconds/step"),
        "generate_s": mean("seconds/generate"),
        "judge_s": mean("seconds/judge"),
        "update_s": mean("seconds/update"),
        "sync_s": mean("seconds/sync"),
        "waits_s": mean("seconds/generate_wait") + mean("seconds/judge"),
        "staleness": mean("staleness/mean"),
    }


def train(world: Path, variant: str, steps: int, delay: str) -> None:
    """One run."""
    from owlcap.config import RlRun
    from rl.trainer import run_rl

    process = subprocess.Popen(
        [sys.executable, str(SERVER), "--port", "0", "--delay", delay], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http\S+", process.stdout.readline())
        assert found is not None, "the judge's server did not start"
        run_rl(RlRun.model_validate(settings(world, variant, steps, found[0])))
    finally:
        process.terminate()
        process.wait()


def settings(world: Path, variant: str, steps: int, judge: str) -> dict[str, object]:
    """Of the run."""
    pixels = 3136
    return {
        "name": variant.replace(" ", "-"),
        "run_dir": str(world),
        "num_steps": steps + WARM_UP,
        "model": {
            "path": str(world / "model"),
            "dtype": "fp32",
            "freeze_projector": True,
            "gradient_checkpointing": False,
        },
        "video": {
            "fps": 6,
            "min_frames": 12,
            "max_frames": 12,
            "min_pixels": pixels,
            "max_pixels": pixels,
            "total_pixels": 12 * pixels,
        },
        "data": {"train": str(world / "data" / "train.jsonl"), "max_prompt_tokens": 192},
        "optimizer": {"lr": 1e-4, "schedule": "constant"},
        "cluster": {"cpus_per_learner": 0.9, "cpus_per_rollout": 0.9},
        "rollout": {
            "group_size": GROUP_SIZE,
            "prompts_per_step": PROMPTS,
            "max_new_tokens": 60,
            "max_model_len": 288,
            "max_num_seqs": 8,
            "kv_cache_gib": 0.25,
            "enforce_eager": True,
        },
        "rewards": {
            "terms": [{"name": "cser"}],
            "cser": {"mode": "joint"},
            "judge": {
                "kind": "openai",
                "model": "lexical",
                "base_urls": [judge],
                "concurrency": PROMPTS * GROUP_SIZE,
            },
            "cache": {"enabled": False},
        },
        "algorithm": {},
        "pipeline": {"mode": variant.split()[0], "ahead": VARIANTS[variant]},
        "checkpoint": {"every_steps": 1000},
    }


if __name__ == "__main__":
    main()
