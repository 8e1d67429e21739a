"""The model card says where the policy comes from, what it scored, and names no place on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.config import RlRun
from owlcap.evaluation.report import ClipRow, make_report, save_report
from owlcap.export.card import HERE, render_card
from owlcap.export.check import CheckFigures
from owlcap.export.source import ExportSource
from owlcap.inference.settings import PolicySettings

FIGURES = CheckFigures("fp32", 132, source_max=0.0, vllm_max=2.4e-6, vllm_mean=4.8e-7, caption="a man waves")
VERSIONS = {"git_commit": "abc123", "packages": {"vllm": "0.31.0", "wandb": None}}
RUN = {
    "name": "trial",
    "seed": 7,
    "model": {"path": "/home/somebody/secret/base/model", "dtype": "fp32"},
    "data": {"train": "data/toy/train.jsonl", "max_prompt_tokens": 400},
    "optimizer": {"lr": 3e-4},
    "algorithm": {"kl_beta": 0.01},
    "rollout": {"max_new_tokens": 56, "max_model_len": 512},
    "rewards": {"terms": [{"name": "cser"}, {"name": "length", "weight": 0.5}]},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "versions.json").write_text(json.dumps({"git_commit": "def456"}))
    for step, score in ((0, 1.0), (60, 1.5)):
        rows = [ClipRow(id_, ("a man waves",), "a man waves", {"cser": score}) for id_ in ("a", "b")]
        save_report(make_report(f"step {step}", rows), tmp_path / "evaluations" / f"step_{step:06d}.json")
    return tmp_path


def card(run: Path | None) -> str:
    config = RlRun.model_validate(RUN) if run else None
    source = ExportSource(Path("model"), None, None, run, config)
    return render_card("owl", source, PolicySettings(prompt="What happens?"), FIGURES, f"vllm serve {HERE}", VERSIONS)


def test_the_card_of_a_run_tells_data_rewards_figures_and_both_commits(run: Path) -> None:
    text = card(run)
    for part in (
        "Run `trial` (GRPO), seed 7",
        "data `data/toy/train.jsonl`",
        "Rewards: cser (weight 1), length (weight 0.5)",
        "KL beta 0.01 (k3)",
        "+0.500 ± 0.000",
        "exported with commit abc123; vllm 0.31.0",
        "trained with commit def456",
        "largest 2.40e-06, mean 4.80e-07",
        "What happens?",
    ):
        assert part in text


def test_the_card_names_no_place_on_this_machine(run: Path) -> None:
    text = card(run)
    assert "somebody" not in text
    assert str(run) not in text
    assert "Started from `base/model`" in text


def test_the_card_of_a_bare_folder_leaves_training_and_evaluation_out() -> None:
    text = card(None)
    assert "## Training" not in text
    assert "## Held-out captions" not in text
    assert f"vllm serve {HERE}" in text


def test_the_cards_header_is_what_the_hub_reads() -> None:
    import yaml

    _, header, _ = card(None).split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "transformers",
        "pipeline_tag": "video-text-to-text",
        "tags": ["owlcap", "video-captioning", "qwen2_5_vl"],
        "model_name": "owl",
    }
