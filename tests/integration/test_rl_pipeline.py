"""Rollouts that run ahead of the learner, on real engines and ranks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from owlcap.metrics import read_metrics
from owlcap.runs import RunDir
from rl.trainer import run_rl
from rl.weight_sync import SyncStats, load_weights
from tests.integration.toy_run import NUM_STEPS, assert_same_run, config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def test_async_is_one_update_behind_and_can_be_repeated(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run's engines load weights slowly, so that whatever depends on timing differs."""

    def load_slowly(*args: Any) -> SyncStats:
        time.sleep(1.0)
        return load_weights(*args)

    def train(folder: Path) -> RunDir:
        return RunDir(run_rl(config(world, folder, pipeline={"mode": "async"})).parent)

    first = train(tmp_path / "a")
    monkeypatch.setattr("rl.pipeline.load_weights", load_slowly)
    second = train(tmp_path / "b")
    rows = [row for row in read_metrics(first) if "train/loss" in row]
    assert [row["staleness/max"] for row in rows] == [0, 1, 1, 1]
    for step in range(1, NUM_STEPS + 1):
        groups = [json.loads(line) for line in first.rollouts_file(step).read_text().splitlines()]
        assert {group["policy_version"] for group in groups if not group["failure"]} == {max(0, step - 2)}
    same_policy, older = rows[0]["train/mismatch_kl"], rows[3]["train/mismatch_kl"]
    assert same_policy is not None
    assert older is not None
    assert older > 100 * abs(same_policy)
    assert_same_run(first, second, "train/sync_mib")  # in async it is logged once the engines have the weights
