"""A training command that is refused leaves the run as it was; another process may be training it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from owlcap.config import RlRun, Run, SftRun
from owlcap.errors import CheckpointError, ConfigError
from owlcap.runs import RunDir
from owlcap.training.checkpoint import CheckpointMeta, CheckpointStore, DataCursor, Layout
from rl.trainer import run_rl
from sft.train import run_sft

Start = Callable[..., Path]


@pytest.fixture(params=[(SftRun, run_sft), (RlRun, run_rl)], ids=["sft", "rl"])
def command(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_policy: Path, toy_clips: tuple[Path, ...]
) -> tuple[Run, Start]:
    kind, start = request.param
    messages = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "A man."}]
    line = json.dumps({"messages": messages, "videos": [str(toy_clips[0])]}) + "\n"
    (tmp_path / "train.jsonl").write_text(line * 64)
    settings = {
        "name": "toy",
        "run_dir": str(tmp_path / "runs"),
        "model": {"path": str(tiny_policy)},
        "data": {"train": str(tmp_path / "train.jsonl")},
        "optimizer": {"lr": 1e-3},
    }
    return kind.model_validate(settings | ({"algorithm": {}, "num_steps": 4} if kind is RlRun else {})), start


def begin(cfg: Run) -> RunDir:
    """The run as an earlier start left it, with other settings."""
    run = RunDir.create(cfg)
    run.record(cfg.model_copy(update={"seed": 1}))
    return run


def files(run: RunDir) -> dict[str, str]:
    return {file.name: file.read_text() for file in run.path.iterdir() if file.is_file() and file.name != ".lock"}


def test_a_run_in_use_keeps_its_settings_and_versions(command: tuple[Run, Start]) -> None:
    cfg, start = command
    run = begin(cfg)
    before = files(run)
    with run.locked(), pytest.raises(ConfigError, match="in use by process"):
        start(cfg, resume=True)
    assert files(run) == before


def test_a_checkpoint_that_does_not_fit_leaves_settings_and_versions(command: tuple[Run, Start]) -> None:
    cfg, start = command
    run = begin(cfg)
    before = files(run)
    meta = CheckpointMeta(2, DataCursor(), Layout(7, 0, "fp32", ()))
    CheckpointStore(run.checkpoints, 1).write(meta, lambda folder: (folder / "engine").mkdir())
    with pytest.raises(CheckpointError, match=r"cluster\.learner_ranks: checkpoint 7"):
        start(cfg, resume=True)
    assert files(run) == before
