"""A run goes on with the model, the data and the order that its checkpoint is of, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from owlcap.config import RlRun, Run, SftRun
from owlcap.errors import CheckpointError
from owlcap.runs import RunDir
from owlcap.training.checkpoint import CheckpointMeta, CheckpointStore, DataCursor, Layout, check_run, load_meta
from owlcap.training.origin import Origin, model_fingerprint, origin_differences, origin_of
from rl.trainer import run_rl
from sft.train import run_sft

NUM_ROWS = 64


def write_model(folder: Path, weights: np.ndarray) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "any"}')
    save_file({"weight": weights}, folder / "model.safetensors")
    return folder


def write_rows(path: Path, caption: str) -> Path:
    messages = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": caption}]
    path.write_text((json.dumps({"messages": messages, "videos": [str(path)]}) + "\n") * NUM_ROWS)
    return path


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Two models of the same shapes and two data sets of the same size."""
    weights = np.arange(5_000_000, dtype=np.float32)
    write_model(tmp_path / "model", weights)
    write_model(tmp_path / "other", weights + 1)
    write_rows(tmp_path / "train.jsonl", "A man.")
    write_rows(tmp_path / "other.jsonl", "A cat.")
    return tmp_path


def settings(kind: type[Run], world: Path, **changes: object) -> Run:
    known: dict[str, object] = {
        "name": "toy",
        "run_dir": str(world / "runs"),
        "model": {"path": str(world / "model")},
        "data": {"train": str(world / "train.jsonl")},
        "optimizer": {"lr": 1e-3},
    }
    return kind.model_validate(known | ({"algorithm": {}} if kind is RlRun else {}) | changes)


def origin(kind: type[Run], world: Path, **changes: object) -> Origin:
    return origin_of(settings(kind, world, **changes), NUM_ROWS)


def changed(kind: type[Run], world: Path, **changes: object) -> list[str]:
    """The settings that a checkpoint of the known run refuses."""
    lines = origin_differences(origin(kind, world), origin(kind, world, **changes))
    return [line.split(":")[0] for line in lines]


@pytest.mark.parametrize("kind", [SftRun, RlRun])
def test_seed_data_and_model_may_not_change(world: Path, kind: type[Run]) -> None:
    assert changed(kind, world) == []
    assert changed(kind, world, seed=1) == ["seed"]
    assert changed(kind, world, data={"train": str(world / "other.jsonl")}) == ["data.train"]
    assert changed(kind, world, model={"path": str(world / "other")})[0] == "model.path"


@pytest.mark.parametrize("kind", [SftRun, RlRun])
def test_what_is_frozen_may_not_change(world: Path, kind: type[Run]) -> None:
    frozen = {"path": str(world / "model"), "freeze_projector": True}
    assert changed(kind, world, model=frozen) == ["model.freeze_projector"]


def test_what_a_step_takes_may_not_change(world: Path) -> None:
    assert changed(RlRun, world, rollout={"prompts_per_step": 32}) == ["rollout.prompts_per_step"]
    assert changed(SftRun, world, sft={"batch_size": 32}) == ["sft.batch_size"]
    assert changed(SftRun, world, sft={"qa": str(world / "other.jsonl")}) == ["sft.qa", "sft.qa_share"]


def test_the_reference_may_be_named_or_left_out_but_not_change(world: Path) -> None:
    assert changed(RlRun, world, reference_model=str(world / "model")) == []
    assert changed(RlRun, world, reference_model=str(world / "other")) == ["reference_model"]


def test_files_may_move(world: Path) -> None:
    shutil.copytree(world / "model", world / "moved")
    shutil.copy(world / "train.jsonl", world / "moved.jsonl")
    moved = {"model": {"path": str(world / "moved")}, "data": {"train": str(world / "moved.jsonl")}}
    assert changed(RlRun, world, **moved) == []


def test_how_it_is_trained_may_change(world: Path) -> None:
    free = {"optimizer": {"lr": 1e-5}, "num_steps": 9, "algorithm": {"kl_beta": 0.1}, "rollout": {"group_size": 4}}
    assert changed(RlRun, world, **free) == []


def test_a_difference_shows_both_values(world: Path) -> None:
    assert origin_differences(origin(RlRun, world), origin(RlRun, world, seed=1)) == ["seed: checkpoint 0, run 1"]


def test_a_model_is_known_by_its_configuration_too(world: Path) -> None:
    before = model_fingerprint(str(world / "model"))
    (world / "model" / "config.json").write_text('{"model_type": "another"}')
    assert model_fingerprint(str(world / "model")) != before


def write_checkpoint(cfg: Run, grown_from: Origin) -> Path:
    layout = Layout(cfg.cluster.learner_ranks, cfg.deepspeed.zero_stage, cfg.model.dtype, ())
    store = CheckpointStore(Path(cfg.run_dir) / cfg.name / "checkpoints", keep=2)
    return store.write(CheckpointMeta(1, DataCursor(0, 1), layout, origin=grown_from), lambda folder: None)


def test_the_checkpoint_of_a_run_holds_what_it_grew_from(world: Path) -> None:
    cfg = settings(RlRun, world)
    assert load_meta(write_checkpoint(cfg, origin(RlRun, world))).origin == origin(RlRun, world)


def test_a_checkpoint_from_before_this_was_recorded_is_taken_with_a_warning(
    world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = settings(RlRun, world)
    check_run(write_checkpoint(cfg, ()), cfg, origin(RlRun, world), 100)
    assert len(caplog.records) == 1
    assert "does not say of which model and data it is" in caplog.text


@pytest.mark.parametrize(("kind", "start"), [(SftRun, run_sft), (RlRun, run_rl)], ids=["sft", "rl"])
def test_the_command_refuses_with_every_difference_before_anything_starts(
    world: Path, tiny_policy: Path, kind: type[Run], start: Callable[..., Path]
) -> None:
    cfg = settings(kind, world, model={"path": str(tiny_policy)})
    RunDir.create(cfg).record(cfg)
    write_checkpoint(cfg, origin_of(cfg, NUM_ROWS))
    other = cfg.model_copy(
        update={"seed": 5, "data": cfg.data.model_copy(update={"train": str(world / "other.jsonl")})}
    )
    with pytest.raises(CheckpointError, match="seed: checkpoint 0, run 5") as caught:
        start(other, resume=True)
    assert "data.train: checkpoint 64 rows, content" in str(caught.value)
    assert "another name=..." in str(caught.value)
