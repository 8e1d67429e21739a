"""The driver's own time in a step that hundreds of engines and judges work on.

    python benchmarks/controller.py [--engines 256] [--judges 64] [--steps 3]

The driver is the real one: rl.trainer's loop, pipeline, rollout pool, reward service, advantages, metrics and rollout
logs. What it drives is not: engines answer after 5-15 s at random without a model (each 2 prompts a step, 8 captions of
200 tokens, 250 KB of pixels a prompt), --judges captions are judged at a time, each 0.1-0.4 s, an update takes 10 s,
weights are 50 MB. The engines share a few processes, since 256 do not fit on a small machine; each is a slot of its own
to the pool, with its own calls and streams. On a machine with few cores the engines' processes slow the step down too.

`driver` is the CPU time of the driver's process in a step (all threads), and its share of the step's wall time.
Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray

from owlcap.config import RlRun
from owlcap.runs import RunDir
from owlcap.training.checkpoint import Layout
from owlcap.training.interrupt import StopSignals
from owlcap.types import Completion, LearnerGroup, Prompt, RolloutGroup, Sample, VisionInputs
from rewards.service import RewardPool
from rl.engine_thread import EngineThread
from rl.evaluate import Evaluator
from rl.state import PromptOrder
from rl.stats import LearnerStats
from rl.trainer import Actors, _Trainer
from rl.weight_sync import WeightBuckets
from rollout.pool import RolloutPool
from rollout.settings import GenerationRequest, RolloutEngineSettings
from rollout.slot import WorkerSlot
from rollout.worker import WorkerResult

PROCESSES = 8  # that the engines share
PROMPTS_AN_ENGINE = 2
GROUP_SIZE = 8
NUM_TOKENS = 200
UPDATE_S = 10.0
WARM_UP = 1  # steps
REWARD_ACTORS = 4
REWARD = """
import asyncio, random

calls = None

async def judge(captions, sample):
    global calls
    calls = calls or asyncio.Semaphore(JUDGES)

    async def one(caption):
        async with calls:
            await asyncio.sleep(random.uniform(0.1, 0.4))
        return float(len(caption) % 7)

    return list(await asyncio.gather(*map(one, captions)))
"""


class Engines:
    """Several engines in one process: each call is one engine's."""

    def __init__(self) -> None:
        self._version = 0

    def place(self) -> int:
        """See RolloutWorker."""
        return 0

    def start(self) -> int:
        """See RolloutWorker."""
        return 0

    def load_weights(self, refs: Sequence[ray.ObjectRef], version: int, *_: object) -> int:
        """See RolloutWorker."""
        self._version = version
        return version

    def version(self) -> int:
        """See RolloutWorker."""
        return self._version

    def close(self) -> None:
        """See RolloutWorker."""

    def generate(self, requests: Sequence[GenerationRequest], version: int) -> Iterator[Prompt | WorkerResult]:
        """See RolloutWorker."""
        for place, request in enumerate(requests):
            time.sleep(random.uniform(5.0, 15.0) / len(requests))
            pixels = np.zeros((52, 1176), np.float32)
            yield Prompt(tuple(range(280)), VisionInputs(pixels, (1, 4, 13), 1.0))
            one = Completion(tuple(range(NUM_TOKENS)), (-0.5,) * NUM_TOKENS, "", "stop", version)
            texts = [" ".join(["word"] * (100 + random.randrange(50))) for _ in range(GROUP_SIZE)]
            completions = tuple(Completion(one.token_ids, one.logprobs, text, "stop", version) for text in texts)
            yield WorkerResult(place, RolloutGroup(request.sample, completions, num_prompt_tokens=280))


class Learner:
    """Takes its time."""

    layout = Layout(1, 0, "fp32", ())

    def update(self, groups: Sequence[LearnerGroup], num_prompt_tokens: Sequence[int]) -> LearnerStats:
        """See LearnerClient."""
        time.sleep(UPDATE_S)
        return LearnerStats(**cast("dict[str, Any]", dict.fromkeys(LearnerStats.__dataclass_fields__, 0.0)))

    def weights(self) -> WeightBuckets:
        """See LearnerClient."""
        weight = np.zeros(12_500_000, np.float32)
        return WeightBuckets((ray.put([("weight", weight)]),), weight.nbytes)

    def save(self, folder: Path) -> None:
        """See LearnerClient."""

    def export(self, folder: Path) -> None:
        """See LearnerClient."""


class Clocked(_Trainer):
    """The trainer, with the driver's CPU time of each step."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.cpu_s: list[float] = []
        self.wall_s: list[float] = []

    def _step(self, metrics: Any) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        values = super()._step(metrics)
        self.wall_s.append(time.perf_counter() - wall)
        self.cpu_s.append(time.process_time() - cpu)
        return values


def main() -> None:
    """Run the steps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=256)
    parser.add_argument("--judges", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    ray.init(address="local", num_cpus=16, include_dashboard=False, configure_logging=False, log_to_driver=False)
    share_processes(arguments.engines)
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), arguments)
    ray.shutdown()
    print("| engines | judges | captions a step | step, s | driver, s | driver |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    print(
        f"| {arguments.engines} | {arguments.judges} | {figures['captions']} | {figures['step_s']:.1f} | "
        f"{figures['driver_s']:.2f} | {figures['share']:.1%} |"
    )
    print(json.dumps({"benchmark": "controller", **vars(arguments), **figures}))


def share_processes(num_engines: int) -> None:
    """Let every slot of a pool use one of a few processes instead of one of its own."""
    threads = -(-num_engines // PROCESSES) + 2
    hubs = [
        ray.remote(Engines).options(num_cpus=1, max_concurrency=threads).remote()  # type: ignore[attr-defined]
        for _ in range(PROCESSES)
    ]

    def launch(self: WorkerSlot) -> None:
        self.actor = hubs[self.index % PROCESSES]
        self.placed = self.actor.place.remote()
        self._unchecked = [self.actor.start.remote()]

    WorkerSlot.launch = launch


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Means over the steps after the first."""
    (folder / "reward.py").write_text(REWARD.replace("JUDGES", str(arguments.judges // REWARD_ACTORS)))
    prompts = arguments.engines * PROMPTS_AN_ENGINE
    cfg = RlRun.model_validate(
        {
            "name": "run",
            "run_dir": str(folder),
            "num_steps": arguments.steps + WARM_UP,
            "model": {"path": "model"},
            "data": {"train": "train.jsonl", "max_prompt_tokens": 1024},
            "optimizer": {"lr": 1e-6},
            "algorithm": {},
            "cluster": {"rollout_workers": arguments.engines, "reward_workers": REWARD_ACTORS},
            "rollout": {
                "group_size": GROUP_SIZE,
                "prompts_per_step": prompts,
                "max_new_tokens": NUM_TOKENS,
                "max_model_len": 2048,
            },
            "rewards": {
                "terms": [{"name": f"{folder}/reward.py:judge"}],
                "judge": {"concurrency": arguments.judges},
            },
            "checkpoint": {"every_steps": 1000},
        }
    )
    samples = [Sample(f"clip-{i}", f"{i}.mp4", "Describe.", "-", "A man waves.") for i in range(2 * prompts)]
    order = PromptOrder(len(samples), prompts, cfg.seed)
    rewards = RewardPool(cfg.rewards, cfg.cluster)
    with (
        StopSignals() as stop,
        EngineThread() as thread,
        RolloutPool(RolloutEngineSettings.from_run(cfg), cfg.cluster) as pool,
    ):
        actors = Actors(cast("Any", Learner()), pool, rewards, thread)
        trainer = Clocked(cfg, RunDir.create(cfg), samples, order, Evaluator(cfg), actors, stop)
        trainer.run(resume=False)
    rewards.close()
    driver_s = sum(trainer.cpu_s[WARM_UP:]) / arguments.steps
    step_s = sum(trainer.wall_s[WARM_UP:]) / arguments.steps
    return {"captions": prompts * GROUP_SIZE, "step_s": step_s, "driver_s": driver_s, "share": driver_s / step_s}


if __name__ == "__main__":
    main()
