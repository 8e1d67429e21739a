"""Paths that travel to actors."""

from __future__ import annotations

from pathlib import Path

import pytest

from owlcap.config import RlRun
from rl.paths import absolute


def test_models_and_reward_files_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft").mkdir()
    (tmp_path / "base").mkdir()
    settings = {
        "name": "toy",
        "model": {"path": "sft"},
        "reference_model": "base",
        "data": {"train": "train.jsonl"},
        "optimizer": {"lr": 1e-3},
        "algorithm": {},
        "rewards": {"terms": [{"name": "cser"}, {"name": "mine/reward.py:Vowels", "weight": 0.5}]},
    }
    cfg = absolute(RlRun.model_validate(settings))
    assert cfg.model.path == str(tmp_path / "sft")
    assert cfg.reference_model == str(tmp_path / "base")
    assert [term.name for term in cfg.rewards.terms] == ["cser", f"{tmp_path}/mine/reward.py:Vowels"]
    assert cfg.rewards.terms[1].weight == 0.5
    assert absolute(cfg) == cfg


def test_a_hub_name_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {
        "name": "toy",
        "model": {"path": "Qwen/Qwen2.5-VL-7B-Instruct"},
        "data": {"train": "train.jsonl"},
        "optimizer": {"lr": 1e-6},
        "algorithm": {},
    }
    cfg = absolute(RlRun.model_validate(settings))
    assert cfg.model.path == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert cfg.reference_model is None
