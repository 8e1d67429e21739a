"""The demo's parts that need no training: its sizes, its folder, its summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.config import RlRun
from owlcap.demo import FAST, FULL, DemoSize, Stage, claim, demo_configs, rl_run, write_summary
from owlcap.errors import ConfigError
from owlcap.evaluation.report import ClipRow, make_report, save_report


@pytest.mark.parametrize("size", [FULL, FAST])
def test_both_sizes_give_runs_that_fit_together(size: DemoSize, tmp_path: Path) -> None:
    sft, rl = demo_configs(tmp_path, size, seed=3)
    assert (sft.seed, rl.seed) == (3, 3)
    assert rl.model.path == str(tmp_path / "sft" / "model")
    assert sft.sft.num_epochs == size.sft_epochs
    assert rl.evaluation.data == str(tmp_path / "data" / "test.jsonl")
    assert rl.evaluation.num_clips == size.num_test >= 200
    assert rl.evaluation.every_steps == rl.num_steps == size.rl_steps


def test_a_folder_keeps_to_one_size_and_seed(tmp_path: Path) -> None:
    claim(tmp_path, FAST, 0)
    claim(tmp_path, FAST, 0)
    with pytest.raises(ConfigError, match="another size or seed"):
        claim(tmp_path, FULL, 0)
    with pytest.raises(ConfigError, match="another size or seed"):
        claim(tmp_path, FAST, 1)


def _evaluated(rl: RlRun, step: int, csers: tuple[float, float], *, sampled: bool) -> None:
    names = ("correctness", "completeness", "f1", "motion_f1", "detail_f1", "length_words")
    rows = [
        ClipRow(f"clip-{i}", ("A person jumps.",), "A person jumps.", {"cser": cser} | dict.fromkeys(names, 0.5))
        for i, cser in enumerate(csers)
    ]
    run = rl_run(rl)
    run.evaluations.mkdir(parents=True, exist_ok=True)
    save_report(make_report(f"step {step}", rows), run.evaluation_file(step, sampled=sampled))


def test_the_summary_holds_both_evaluations(tmp_path: Path) -> None:
    _, rl = demo_configs(tmp_path, FAST, seed=0)
    for sampled in (False, True):
        _evaluated(rl, 0, (0.5, 1.0), sampled=sampled)
        _evaluated(rl, FAST.rl_steps, (1.0, 2.0), sampled=sampled)
    file = tmp_path / "summary.json"
    write_summary(rl_run(rl), FAST.rl_steps, file, [Stage("SFT", 1.5)])
    summary = json.loads(file.read_text(encoding="utf-8"))
    assert summary["before"] == {
        "cser": 0.75,
        "cser_se": 0.25,  # sqrt(0.125 / 2)
        "correctness": 0.5,
        "completeness": 0.5,
        "f1": 0.5,
        "motion_f1": 0.5,
        "detail_f1": 0.5,
        "length": 0.5,
        "num_clips": 2,
    }
    assert (summary["after"]["cser"], summary["after"]["cser_se"]) == (1.5, 0.5)
    assert summary["sampled"]["after"] == summary["after"]
    assert summary["seconds"] == {"SFT": 1.5}
