"""LoRA through the whole loop: adapters in the learner, merged weights in the engines and in the exported folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from owlcap.metrics import read_metrics
from owlcap.runs import RunDir
from rl.trainer import run_rl
from tests.integration.toy_run import config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def test_engines_hold_what_the_adapters_make_of_the_policy(world: Path, tmp_path: Path) -> None:
    plain = config(world, tmp_path)
    settings = plain.model.model_dump() | {"lora": {"rank": 4}}
    cluster = plain.cluster.model_dump() | {"rollout_workers": 1}
    cfg = config(world, tmp_path, model=settings, cluster=cluster, deepspeed={"zero_stage": 3}, num_steps=3)
    run = RunDir(run_rl(cfg).parent)
    rows = [row for row in read_metrics(run) if "train/loss" in row]
    assert all(row["train/mismatch_max"] < 1e-4 for row in rows)  # type: ignore[operator]
    assert rows[0]["train/kl"] == pytest.approx(0.0, abs=1e-9)
    assert rows[2]["train/kl"] > 1e-9  # type: ignore[operator]  # against the policy without its adapters
    before, after = load_file(world / "model" / "model.safetensors"), load_file(run.model / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name, weight in after.items() if not np.array_equal(weight, before[name])}
    assert moved
    assert all("_proj" in name and "visual" not in name for name in moved)
