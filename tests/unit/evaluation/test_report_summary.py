"""Whether a run has finished: what it reached of what it was asked for, and its model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from owlcap.evaluation.run_report.reading import read_run
from owlcap.evaluation.run_report.summary import summary

RL = {"kind": "rl", "num_steps": 4, "num_epochs": 1}
BY_EPOCHS = {"kind": "rl", "num_steps": None, "num_epochs": 2}
SFT = {"kind": "sft", "sft": {"num_epochs": 2, "max_steps": None}}
SHORT_SFT = {"kind": "sft", "sft": {"num_epochs": 2, "max_steps": 3}}
EARLY, NO_MODEL = "before its end: still running, or interrupted", "no model/ yet: still running, or ended early"


def state(folder: Path, config: dict[str, object], step: int, *, model: bool) -> str:
    """Of a run of two steps an epoch after `step` of them."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [{"step": done, "train/epoch": done / 2} for done in range(1, step + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "versions.json").write_text("{}")
    if model:
        (folder / "model").mkdir()
    return summary(read_run(folder)).facts[2]


@pytest.mark.parametrize(("config", "last"), [(RL, 4), (BY_EPOCHS, 4), (SFT, 4), (SHORT_SFT, 3)])
def test_a_run_has_finished_at_its_last_step_with_a_model(tmp_path: Path, config: dict[str, object], last: int) -> None:
    assert state(tmp_path, config, last, model=True) == "finished"


@pytest.mark.parametrize(("config", "step"), [(RL, 3), (BY_EPOCHS, 3), (SFT, 3), (SHORT_SFT, 2)])
def test_an_older_model_does_not_finish_a_run(tmp_path: Path, config: dict[str, object], step: int) -> None:
    assert state(tmp_path, config, step, model=True) == EARLY


def test_a_run_without_its_model_has_not_finished(tmp_path: Path) -> None:
    assert state(tmp_path, RL, 4, model=False) == NO_MODEL


def test_of_unknown_settings_the_model_tells(tmp_path: Path) -> None:
    assert state(tmp_path, {}, 4, model=True) == "finished"
