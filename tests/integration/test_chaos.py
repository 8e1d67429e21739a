"""The toy run while its parts are killed."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from owlcap.data.rows import read_rows
from owlcap.metrics import read_metrics
from owlcap.runs import RunDir
from owlcap.training.checkpoint import DataCursor
from rl.state import PromptOrder
from rl.trainer import run_rl
from tests.integration.toy_run import config, name_of, prompts_of

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster")]

SEED = 7
KINDS = ("RolloutWorker", "RewardWorker", "LearnerWorker")
POLL_S = 0.02


def actors(kind: str) -> list[psutil.Process]:
    """Processes of this test's actors of one class, oldest first."""
    found = [one for one in psutil.Process().children(recursive=True) if name_of(one).startswith(f"ray::{kind}")]
    return sorted(found, key=psutil.Process.create_time)


@dataclass
class Monkey:
    """Kills an actor of each kind in a random order, each at a random moment of a step of its own."""

    run: RunDir
    rng: random.Random
    killed: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def kill(self) -> None:
        for number, kind in enumerate(self.rng.sample(KINDS, len(KINDS))):
            while not self.run.rollouts_file(number + 2).exists():
                if self.ended.wait(POLL_S):
                    return
            self.ended.wait(self.rng.uniform(0.0, 0.5))
            while not (victims := actors(kind)):  # one that was killed is on its way back
                if self.ended.wait(POLL_S):
                    return
            self.rng.choice(victims).kill()
            self.killed.append(kind)


@contextmanager
def chaos(run: RunDir) -> Iterator[Monkey]:
    monkey = Monkey(run, random.Random(SEED))
    thread = threading.Thread(target=monkey.kill)
    thread.start()
    try:
        yield monkey
    finally:
        monkey.ended.set()
        thread.join()


@pytest.mark.parametrize("mode", ["overlap", "async"])
def test_a_run_whose_actors_are_killed_trains_every_prompt_of_every_step_once(
    world: Path, tmp_path: Path, mode: str
) -> None:
    num_steps = len(KINDS) + 2  # none is killed in the first step, and one is left after the last
    checkpoint, pipeline = {"every_steps": 2, "keep": 2}, {"mode": mode}
    cfg = config(world, tmp_path, num_steps=num_steps, checkpoint=checkpoint, pipeline=pipeline)
    run = RunDir(tmp_path / "run")
    with chaos(run) as monkey:
        model = run_rl(cfg)
    assert set(monkey.killed) == set(KINDS)
    assert (model / "model.safetensors").is_file()

    rows = [row for row in read_metrics(run) if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, num_steps + 1))
    assert all(value is not None and math.isfinite(value) for row in rows for value in row.values())

    samples = read_rows(cfg.data.train, cfg.data)
    order, cursor = PromptOrder(len(samples), cfg.rollout.prompts_per_step, cfg.seed), DataCursor()
    for step in range(1, num_steps + 1):
        assert prompts_of(run, step) == [samples[row].id for row in order.rows(cursor)]
        cursor = order.after(cursor)
