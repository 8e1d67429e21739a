"""The whole loop on 2 learner ranks and 2 vLLM engines, and resuming it bit for bit.

The data and the run are those of toy_run.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from safetensors.numpy import load_file

from owlcap.config import RlRun
from owlcap.config_io import dump
from owlcap.metrics import read_metrics
from owlcap.models.tiny import make_tiny_model
from owlcap.runs import RunDir
from owlcap.training.checkpoint import CheckpointStore, load_meta
from rl.trainer import run_rl
from tests.integration.toy_run import NUM_STEPS, assert_same_run, config, name_of

pytestmark = pytest.mark.slow

POLL_S = 0.02
DEADLINE_S = 300.0
EPOCH_END = "step-00000002"  # two steps are an epoch here


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_the_loop_trains_evaluates_and_exports(straight: RunDir, world: Path) -> None:
    rows = [row for row in read_metrics(straight) if "train/loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert row["train/mismatch_max"] is not None
        assert row["train/mismatch_max"] < 1e-4  # learner and engines hold one model, at every version
    assert rows[0]["train/kl"] == pytest.approx(0.0, abs=1e-9)
    assert rows[3]["train/kl"] > 0  # type: ignore[operator]
    assert sum(row["rollout/failed"] or 0 for row in rows) == 2  # the empty file, once an epoch
    assert sorted(file.name for file in straight.evaluations.iterdir()) == [
        f"step_{step:06d}.{kind}" for step in (0, 2, 4) for kind in ("json", "sampled.json")
    ]
    before, after = load_file(world / "model" / "model.safetensors"), load_file(straight.model / "model.safetensors")
    moved = {name for name, weight in after.items() if not np.array_equal(weight, before[name])}
    assert moved
    assert not any("visual" in name for name in moved)


def test_the_second_epoch_computes_no_vision_features(straight: RunDir) -> None:
    rows = [row for row in read_metrics(straight) if "train/loss" in row]
    assert [row["features/hits"] for row in rows[:2]] == [0, 0]
    assert sum(row["features/misses"] or 0 for row in rows[:2]) == 7  # clips that can be read
    assert [row["features/misses"] for row in rows[2:]] == [0, 0]
    assert sum(row["features/hits"] or 0 for row in rows[2:]) == 7


def test_completions_carry_the_version_they_were_drawn_with(straight: RunDir) -> None:
    for step in range(1, NUM_STEPS + 1):
        groups = [json.loads(line) for line in straight.rollouts_file(step).read_text().splitlines()]
        assert {group["policy_version"] for group in groups if not group["failure"]} == {step - 1}
        assert all("empty" in group["failure"] for group in groups if group["failure"])


def owlcap(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "owlcap", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def write_config(cfg: RlRun, folder: Path) -> Path:
    file = folder / "config.yaml"
    file.write_text(dump(cfg))
    return file


def end_by_signal(cfg: RlRun, run: RunDir) -> int:
    """Train until the second step is being trained; the exit code."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            if run.rollouts_file(2).exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(SystemExit) as caught:
            run_rl(cfg)
    finally:
        ended.set()
        watcher.join()
    return caught.value.code  # type: ignore[return-value]


def kill_driver(driver: subprocess.Popen[str], when: Path) -> None:
    """Kill a command once a file is there, and wait for everything that it started."""
    started = psutil.Process(driver.pid)
    while driver.poll() is None and not when.exists():
        threading.Event().wait(POLL_S)
    assert driver.poll() is None, driver.communicate()[0]
    family = [process for process in started.children(recursive=True) if not name_of(process).endswith("Agent")]
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=DEADLINE_S)
    _, alive = psutil.wait_procs(family, timeout=DEADLINE_S)
    assert not alive  # no actor and no raylet is left behind; two agents of Ray's own end a minute later


def test_a_run_ended_by_a_signal_and_then_killed_goes_on_bit_for_bit(
    straight: RunDir, world: Path, tmp_path: Path
) -> None:
    """Resumed inside an epoch or at its end, and then at its end."""
    cfg, run = config(world, tmp_path), RunDir(tmp_path / "run")
    rarely = cfg.checkpoint.model_copy(update={"every_steps": 100})  # what is there then was written at the signal
    assert end_by_signal(cfg.model_copy(update={"checkpoint": rarely}), run) == 128 + signal.SIGTERM
    checkpoint = CheckpointStore(run.checkpoints, 1).latest()
    assert checkpoint is not None
    assert load_meta(checkpoint).step in (1, 2)

    file = write_config(cfg, tmp_path)
    kill_driver(owlcap("rl", file, "--resume"), when=run.checkpoints / "step-00000003")
    for checkpoint in run.checkpoints.iterdir():
        if checkpoint.name > EPOCH_END:
            shutil.rmtree(checkpoint)
    assert load_meta(run.checkpoints / EPOCH_END).cursor.batch == 0

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
