"""A policy's video settings and question: beside its weights, or in the run it lies in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from owlcap.config import MotionSection, RlRun, SftRun, VideoSection
from owlcap.errors import ConfigError
from owlcap.inference.settings import (
    DEFAULT_MAX_NEW_TOKENS,
    DEFAULT_PROMPT,
    PolicySettings,
    find_settings,
    read_run_config,
    run_of,
    write_settings,
)

VIDEO = {"fps": 6.0, "min_frames": 2, "max_frames": 12}


def make_run(folder: Path, **changes: object) -> Path:
    """A run directory as training leaves it, without its data."""
    values: dict[str, object] = {
        "kind": "rl",
        "name": "trial",
        "model": {"path": "base"},
        "video": VIDEO,
        "data": {"train": "gone.jsonl", "prompt": "What happens?", "max_prompt_tokens": 400},
        "optimizer": {"lr": 1e-5},
        "algorithm": {"clip_ratio": 0.2},
        "rollout": {"max_new_tokens": 56, "max_model_len": 512},
    }
    values |= changes
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


def test_settings_read_back_as_they_were_written(tmp_path: Path) -> None:
    settings = PolicySettings(VideoSection(fps=6, min_frames=2, max_frames=12), "Was passiert? größer", 56, "owl")
    write_settings(tmp_path, settings)
    assert find_settings(tmp_path) == settings


def test_the_motion_pathway_is_among_them_and_off_in_folders_written_before_it(tmp_path: Path) -> None:
    motion = MotionSection(enabled=True, max_overlays=3)
    write_settings(tmp_path, PolicySettings(motion=motion))
    found = find_settings(tmp_path)
    assert found is not None
    assert found.motion == motion
    values = json.loads((tmp_path / "owlcap.json").read_text())
    del values["motion"]
    (tmp_path / "owlcap.json").write_text(json.dumps(values))
    assert find_settings(tmp_path) == PolicySettings()


def test_a_folder_without_settings_and_run_has_none(tmp_path: Path) -> None:
    assert find_settings(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "{}", '{"video": {"fsp": 2}, "prompt": "x", "max_new_tokens": 5}'])
def test_settings_that_cannot_be_read_are_an_error_not_a_default(tmp_path: Path, text: str) -> None:
    (tmp_path / "owlcap.json").write_text(text)
    with pytest.raises(ConfigError, match="settings cannot be read") as error:
        find_settings(tmp_path)
    assert error.value.where == str(tmp_path / "owlcap.json")


@pytest.mark.parametrize("inside", ["model", "checkpoints/step-00000002", "checkpoints/step-00000002/model"])
def test_a_folder_inside_a_run_has_the_runs_settings(tmp_path: Path, inside: str) -> None:
    run = make_run(tmp_path / "trial")
    assert run_of(run / inside) == run
    assert find_settings(run / inside) == PolicySettings(VideoSection.model_validate(VIDEO), "What happens?", 56)


def test_an_sft_run_has_no_answer_length_of_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "trial")
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["rollout"], config["algorithm"]
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "kind": "sft"}))
    assert isinstance(read_run_config(run), SftRun)
    settings = find_settings(run / "model")
    assert settings is not None
    assert settings.max_new_tokens == DEFAULT_MAX_NEW_TOKENS


def test_the_question_is_the_datas_own_where_the_config_has_none(tmp_path: Path) -> None:
    row = {
        "id": "a",
        "messages": [{"role": "user", "content": "Tell me all.<video>"}, {"role": "assistant", "content": "A man."}],
        "videos": ["a.mp4"],
    }
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(row) + "\n")
    with_rows = make_run(tmp_path / "one", data={"train": str(rows), "max_prompt_tokens": 400})
    without = make_run(tmp_path / "two", data={"train": "gone.jsonl", "max_prompt_tokens": 400})
    found = [find_settings(run / "model") for run in (with_rows, without)]
    assert [settings and settings.prompt for settings in found] == ["Tell me all.", DEFAULT_PROMPT]


def test_the_config_of_another_version_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "trial", new_section={"x": 1})
    with pytest.raises(ConfigError, match="new_section") as error:
        read_run_config(run)
    assert error.value.where == str(run / "config.yaml")


def test_a_runs_config_reads_back_as_its_kind(tmp_path: Path) -> None:
    assert isinstance(read_run_config(make_run(tmp_path / "trial")), RlRun)
