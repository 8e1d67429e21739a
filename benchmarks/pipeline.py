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
from typing import Any

from toy_run import make_world, rollout, settings

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
        run_rl(RlRun.model_validate(run_settings(world, variant, steps, found[0])))
    finally:
        process.terminate()
        process.wait()


def run_settings(world: Path, variant: str, steps: int, judge: str) -> dict[str, Any]:
    """Of the run."""
    return settings(
        world,
        variant.replace(" ", "-"),
        steps + WARM_UP,
        cluster={"cpus_per_learner": 0.9, "cpus_per_rollout": 0.9},
        rollout=rollout(PROMPTS, GROUP_SIZE, max_num_seqs=8),
        rewards={
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
        pipeline={"mode": variant.split()[0], "ahead": VARIANTS[variant]},
    )


if __name__ == "__main__":
    main()
