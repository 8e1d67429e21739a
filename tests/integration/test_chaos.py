"""The toy run while its parts are killed, after its driver was, and resumed with what does not fit."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from owlcap.config import RlRun
from owlcap.config_io import dump
from owlcap.data.rows import read_rows
from owlcap.metrics import read_metrics
from owlcap.models.tiny import make_tiny_model
from owlcap.runs import RunDir
from owlcap.training.checkpoint import CheckpointStore, DataCursor
from rl.state import PromptOrder
from rl.trainer import run_rl
from tests.integration.toy_run import assert_same_run, config, prompts_of

pytestmark = pytest.mark.slow

SEED = 7
KINDS = ("RolloutWorker", "RewardWorker", "LearnerWorker")
POLL_S = 0.02
DEADLINE_S = 300.0


def name_of(process: psutil.Process) -> str:
    """What a process calls itself; Ray's write it over their command line. Empty when it has ended."""
    try:
        return "".join(process.cmdline()[:1]).strip()
    except psutil.NoSuchProcess:
        return ""


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


@pytest.mark.chaos
@pytest.mark.parametrize("mode", ["overlap", "async"])
def test_a_run_whose_actors_are_killed_trains_every_prompt_of_every_step_once(
    world: Path, tmp_path: Path, ray_cluster: None, mode: str
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


def owlcap(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "owlcap", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def write_config(cfg: RlRun, folder: Path) -> Path:
    file = folder / "config.yaml"
    file.write_text(dump(cfg))
    return file


def test_a_run_whose_driver_was_killed_goes_on_bit_for_bit(straight: RunDir, world: Path, tmp_path: Path) -> None:
    file, run = write_config(config(world, tmp_path), tmp_path), RunDir(tmp_path / "run")
    driver = owlcap("rl", file)
    started = psutil.Process(driver.pid)
    while driver.poll() is None and CheckpointStore(run.checkpoints, 1).latest() is None:
        threading.Event().wait(POLL_S)
    assert driver.poll() is None, driver.communicate()[0]
    family = [process for process in started.children(recursive=True) if not name_of(process).endswith("Agent")]
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=DEADLINE_S)
    _, alive = psutil.wait_procs(family, timeout=DEADLINE_S)
    assert not alive  # no actor and no raylet is left behind; two agents of Ray's own end a minute later

    again = owlcap("rl", file, "--resume")
    output, _ = again.communicate(timeout=DEADLINE_S)
    assert again.returncode == 0, output
    assert_same_run(run, straight)


def refusal(*arguments: str | Path) -> str:
    """What a command says that ends with an error and not with a traceback."""
    command = owlcap(*arguments)
    output, _ = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 2, output
    assert "Traceback" not in output
    return " ".join(output.split())


def test_resuming_with_other_ranks_or_precision_is_refused_before_anything_starts(
    straight: RunDir, world: Path, tmp_path: Path
) -> None:
    shutil.copytree(straight.path, tmp_path / "run")
    file = write_config(config(world, tmp_path), tmp_path)
    said = refusal("rl", file, "cluster.learner_ranks=1", "model.dtype=bf16", "--resume")
    assert "checkpoint belongs to another model or set-up" in said
    assert "cluster.learner_ranks: checkpoint 2, run 1" in said
    assert "model.dtype: checkpoint fp32, run bf16" in said


def test_resuming_with_another_model_lists_what_differs(straight: RunDir, world: Path, tmp_path: Path) -> None:
    shutil.copytree(straight.path, tmp_path / "run")
    other = make_tiny_model(tmp_path / "other", ["another vocabulary, and a much smaller one"], seed=1)
    said = refusal("rl", write_config(config(world, tmp_path), tmp_path), f"model.path={other}", "--resume")
    assert "checkpoint belongs to another model or set-up" in said
    assert re.search(r"model\.path: checkpoint content \w{16}, run content \w{16}", said)


def test_a_cluster_that_does_not_answer_is_refused_in_seconds(world: Path, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        said = refusal("rl", write_config(config(world, tmp_path), tmp_path), f"cluster.ray_address={address}")
    assert "no Ray cluster answers" in said
    assert f"cluster.ray_address={address}" in said
