"""The whole loop on 2 learner ranks and 2 vLLM engines, and resuming it bit for bit.

Eight clips, one of them an empty file, at four prompts a step: an epoch is two steps.
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

from owlcap.config import RlRun
from owlcap.metrics import read_metrics
from owlcap.runs import RunDir
from owlcap.training.checkpoint import CheckpointStore, load_meta
from rl.trainer import run_rl

pytestmark = pytest.mark.slow

NUM_STEPS = 4
# A random policy's captions state no facts, so CSER gives all of them 0; letters differ.
REWARD = """
from owlcap.types import Score


class ShareOfVowels:
    name = "vowels"

    def __init__(self, rewards, options):
        pass

    async def score_group(self, sample, captions):
        return [Score(sum(c in "aeiou" for c in text) / max(1, len(text))) for text in captions]
"""
NOT_REPEATABLE = ("time", "seconds/", "share/", "rollout/restarts", "judge/")  # wall time; what a cache saves


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy data set with one broken clip, and a random policy with its vocabulary."""
    from owlcap.data.rows import read_rows
    from owlcap.data.toy.world import make_toy_world
    from owlcap.models.tiny import make_tiny_model

    root = tmp_path_factory.mktemp("world")
    toy = make_toy_world(root / "data", num_train=8, num_validation=4, num_test=4, seed=1, workers=1, progress=None)
    rows = read_rows(toy.train)
    Path(rows[5].video).write_bytes(b"")
    make_tiny_model(root / "model", [text for row in rows for text in (row.caption, row.reference)], seed=0)
    (root / "reward.py").write_text(REWARD)
    return root


def config(world: Path, folder: Path, **changes: object) -> RlRun:
    settings: dict[str, object] = {
        "name": "run",
        "run_dir": str(folder),
        "num_steps": NUM_STEPS,
        "model": {
            "path": str(world / "model"),
            "dtype": "fp32",
            "freeze_projector": True,
            "gradient_checkpointing": False,
        },
        "video": {
            "fps": 4,
            "min_frames": 4,
            "max_frames": 4,
            "min_pixels": 3136,
            "max_pixels": 3136,
            "total_pixels": 4 * 3136,
        },
        "data": {"train": str(world / "data" / "train.jsonl"), "max_prompt_tokens": 100, "max_bad_rows_share": 1.0},
        "optimizer": {"lr": 1e-3, "schedule": "constant"},
        "cluster": {"learner_ranks": 2, "cpus_per_learner": 0.5, "rollout_workers": 2, "cpus_per_rollout": 0.4},
        "rollout": {
            "group_size": 3,
            "prompts_per_step": 4,
            "max_new_tokens": 12,
            "max_model_len": 128,
            "max_num_seqs": 16,
            "kv_cache_gib": 0.1,
        },
        "rewards": {"terms": [{"name": "cser"}, {"name": f"{world}/reward.py:ShareOfVowels"}]},
        "algorithm": {"tokens_per_micro_batch": 256},
        "evaluation": {"data": str(world / "data" / "test.jsonl"), "every_steps": 2, "num_clips": 4, "sampled": True},
        "checkpoint": {"every_steps": 1, "keep": NUM_STEPS},
    }
    return RlRun.model_validate(settings | changes)


@pytest.fixture(scope="module")
def straight(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run without interruption."""
    model = run_rl(config(world, tmp_path_factory.mktemp("straight")))
    return RunDir(model.parent)


def repeatable(run: RunDir) -> list[dict[str, float | None]]:
    return [
        {name: value for name, value in row.items() if not name.startswith(NOT_REPEATABLE)} for row in read_metrics(run)
    ]


def assert_same_run(a: RunDir, b: RunDir) -> None:
    """Equal metrics, captions, evaluations and weights, to the last bit."""
    assert repeatable(a) == repeatable(b)
    for step in range(1, NUM_STEPS + 1):
        assert a.rollouts_file(step).read_text() == b.rollouts_file(step).read_text()
    for file in a.evaluations.iterdir():
        assert file.read_text() == (b.evaluations / file.name).read_text()
    left, right = load_file(a.model / "model.safetensors"), load_file(b.model / "model.safetensors")
    assert left.keys() == right.keys()
    for name, weight in left.items():
        np.testing.assert_array_equal(weight, right[name], err_msg=name)


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
