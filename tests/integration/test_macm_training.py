"""Training with the motion pathway: SFT of the projectors on two ranks and its resume, then LoRA by RL.

The data are toy_run.py's, with two small pictures a clip in the role of overlays for SFT; one clip has none.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from owlcap.config import SftRun
from owlcap.errors import ModelError
from owlcap.metrics import read_metrics
from owlcap.models.macm import add_motion
from owlcap.runs import RunDir
from rl.trainer import run_rl
from sft.train import run_sft
from tests.integration.toy_run import config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

MOTION = {"enabled": True, "max_overlays": 2, "min_pixels": 28 * 28, "max_pixels": 56 * 56, "missing": "visual"}


@pytest.fixture(scope="module")
def data(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training rows of the toy world with overlays: a folder with train.jsonl and a motion checkpoint."""
    folder = tmp_path_factory.mktemp("macm")
    rng = np.random.default_rng(0)
    rows = [json.loads(line) for line in (world / "data" / "train.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["videos"] = [str(world / "data" / video) for video in row["videos"]]
        row["overlays"] = [f"{number}-{i}.png" for i in range(2)] if number else []
        for name in row["overlays"]:
            Image.fromarray(rng.integers(0, 256, (56, 28, 3), np.uint8)).save(folder / name)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    add_motion(world / "model", folder / "model")
    return folder


def sft(data: Path, run_dir: Path) -> SftRun:
    return SftRun.model_validate(
        {
            "name": "sft",
            "run_dir": str(run_dir),
            "model": {"path": str(data / "model"), "dtype": "fp32", "gradient_checkpointing": True},
            "video": {"fps": 4, "min_frames": 4, "max_frames": 4, "min_pixels": 3136, "max_pixels": 3136},
            "motion": MOTION,
            "data": {"train": str(data / "train.jsonl"), "max_bad_rows_share": 1.0},
            "optimizer": {"lr": 1e-3, "schedule": "constant"},
            "deepspeed": {"zero_stage": 3},
            "cluster": {"learner_ranks": 2, "cpus_per_learner": 0.5},
            "checkpoint": {"every_steps": 1},
            "sft": {"batch_size": 4, "num_epochs": 1},
        }
    )


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Two steps of SFT of projectors and language model at ZeRO-3."""
    return RunDir(run_sft(sft(data, tmp_path_factory.mktemp("tuned"))).parent)


def moved(before: Path, after: Path) -> set[str]:
    """Parts of the policy whose weights differ."""
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert old.keys() == new.keys()
    names = {name for name, weight in new.items() if not np.array_equal(weight, old[name])}
    parts = ("motion_merger", "merger", "visual", "model", "lm_head")
    return {next(part for part in parts if part in name.split(".")) for name in names}


def test_sft_trains_both_projectors_and_the_language_model_and_no_encoder(tuned: RunDir, data: Path) -> None:
    assert moved(data / "model", tuned.model) == {"motion_merger", "merger", "model", "lm_head"}
    assert json.loads((tuned.model / "config.json").read_text())["architectures"] == [
        "MotionQwen2_5_VLForConditionalGeneration"
    ]


def test_sft_resumes_bit_for_bit(tuned: RunDir, data: Path, tmp_path: Path) -> None:
    copy = RunDir(tmp_path / "sft")
    shutil.copytree(tuned.path, copy.path)
    for folder in (copy.model, copy.checkpoints / "step-00000002"):
        shutil.rmtree(folder)
    run_sft(sft(data, tmp_path), resume=True)
    assert not moved(tuned.model, copy.model)


def test_rl_with_lora_and_overlays_from_a_motion_actor_agrees_with_its_engines(
    tuned: RunDir, world: Path, tmp_path: Path
) -> None:
    """The toy world's own rows bring no overlays. One of its eight clips is an empty file."""
    plain = config(world, tmp_path)
    extract = {"cache": str(tmp_path / "cache"), "min_pixels": 112 * 112, "max_pixels": 112 * 112}
    made = {"pose": {"source": "toy"}, "key_frames": {"num_frames": 2}, "extract": extract}
    cfg = config(
        world,
        tmp_path,
        num_steps=2,
        model=plain.model.model_dump() | {"path": str(tuned.model), "lora": {"rank": 4}},
        motion=MOTION | made | {"missing": "error"},
        cluster=plain.cluster.model_dump()
        | {"learner_ranks": 1, "rollout_workers": 1, "motion_actors": 1, "cpus_per_motion": 0.2},
        evaluation={"data": None},
    )
    run = RunDir(run_rl(cfg).parent)
    rows = [row for row in read_metrics(run) if "train/loss" in row]
    assert len(rows) == 2
    assert all(row["train/mismatch_max"] < 1e-4 for row in rows)  # type: ignore[operator]
    assert moved(tuned.model, run.model) == {"motion_merger", "model"}
    assert len(list((tmp_path / "cache").rglob("overlay-0.png"))) == 7
    assert sum(row["rollout/failed"] or 0 for row in rows) == 1


def test_a_plain_checkpoint_is_refused_before_anything_starts(data: Path, world: Path, tmp_path: Path) -> None:
    cfg = sft(data, tmp_path)
    cfg = cfg.model_copy(update={"model": cfg.model.model_copy(update={"path": str(world / "model")})})
    with pytest.raises(ModelError, match="no motion merger"):
        run_sft(cfg)
    with pytest.raises(ModelError, match="no motion merger"):
        run_rl(config(world, tmp_path, motion=MOTION))
    assert not list(tmp_path.iterdir())
