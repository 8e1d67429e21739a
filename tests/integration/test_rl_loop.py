"""The whole loop on 2 learner ranks and 2 vLLM engines, and resuming it bit for bit.

The data and the run are those of toy_run.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from safetensors.numpy import load_file

from owlcap.metrics import read_metrics
from owlcap.runs import RunDir
from owlcap.training.checkpoint import CheckpointStore, load_meta
from rl.trainer import run_rl
from tests.integration.toy_run import NUM_STEPS, assert_same_run, config

pytestmark = pytest.mark.slow


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


def test_resuming_at_the_end_of_an_epoch_is_bit_for_bit(straight: RunDir, world: Path, tmp_path: Path) -> None:
    copy = RunDir(tmp_path / "run")
    shutil.copytree(straight.path, copy.path)
    shutil.rmtree(copy.model)
    for step in (3, 4):
        shutil.rmtree(copy.checkpoints / f"step-{step:08d}")
    assert load_meta(copy.checkpoints / "step-00000002").cursor.batch == 0  # two steps are an epoch here
    run_rl(config(world, tmp_path), resume=True)
    assert_same_run(copy, straight)


def test_a_run_ended_by_a_signal_goes_on_bit_for_bit(straight: RunDir, world: Path, tmp_path: Path) -> None:
    cfg = config(world, tmp_path, checkpoint={"every_steps": 100, "keep": 1})
    run = RunDir(tmp_path / "run")
    ended = threading.Event()

    def end_after_the_first_step() -> None:
        while not ended.wait(0.02):
            if run.rollouts_file(2).exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=end_after_the_first_step)
    watcher.start()
    try:
        with pytest.raises(SystemExit) as caught:
            run_rl(cfg)
    finally:
        ended.set()
        watcher.join()
    assert caught.value.code == 128 + signal.SIGTERM
    checkpoint = CheckpointStore(run.checkpoints, 1).latest()
    assert checkpoint is not None
    assert load_meta(checkpoint).step in (1, 2)
    run_rl(cfg, resume=True)
    assert_same_run(run, straight)
