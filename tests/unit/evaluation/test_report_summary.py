"""Whether a run has finished: what it reached of what it was asked for, and its model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from owlcap.evaluation.report import ClipProblem, ClipRow, make_report, save_report
from owlcap.evaluation.run_report.reading import read_run
from owlcap.evaluation.run_report.summary import evaluation_tables, summary
from owlcap.runs import RunDir

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


def test_the_table_of_held_out_figures_says_which_clips_are_not_in_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.evaluations.mkdir()
    row = ClipRow("a", ("a man",), "a man", {"reward": 1.0})
    save_report(make_report("eval step 0", [row]), run.evaluation_file(0))
    lost = [ClipProblem("b", "VideoError: the file is empty")]
    save_report(make_report("eval step 5", [row], failed=lost), run.evaluation_file(5))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(RL))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 5}) + "\n")
    (table,) = evaluation_tables(read_run(tmp_path))
    assert [cells[-1] for cells in table.rows] == ["1/1", "1/2"]
    (told,) = table.lost
    assert told.startswith("eval step 5: 1 of 2 clips scored")
    assert told.endswith("b (VideoError: the file is empty)")
