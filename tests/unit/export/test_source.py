"""Which policy a path stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from owlcap.errors import ConfigError, ExportError
from owlcap.export.folder import export
from owlcap.export.source import find_source
from owlcap.inference.settings import PolicySettings, write_settings
from owlcap.training.checkpoint import CheckpointMeta, CheckpointStore, DataCursor, Layout


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def make_run(folder: Path) -> Path:
    config = {
        "kind": "sft",
        "name": "trial",
        "model": {"path": "base"},
        "data": {"train": "gone.jsonl", "prompt": "What happens?"},
        "optimizer": {"lr": 1e-5},
    }
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def make_checkpoint(root: Path, step: int) -> Path:
    meta = CheckpointMeta(step, DataCursor(), Layout(1, 2, "fp32", ()))
    return CheckpointStore(root, keep=5).write(meta, lambda folder: (folder / "engine").mkdir())


def test_a_model_folder_is_itself_with_its_own_settings(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    write_settings(model, PolicySettings(prompt="What?"))
    found = find_source(model)
    assert (found.model, found.checkpoint, found.run) == (model, None, None)
    assert found.settings == PolicySettings(prompt="What?")


@pytest.mark.parametrize("inside", [".", "model"])
def test_a_finished_run_is_its_model_even_beside_checkpoints(tmp_path: Path, inside: str) -> None:
    run = make_run(tmp_path / "trial")
    model = make_model(run / "model")
    make_checkpoint(run / "checkpoints", 3)
    found = find_source(run / inside)
    assert (found.model, found.checkpoint, found.run) == (model, None, run)
    assert found.settings is not None
    assert found.settings.prompt == "What happens?"


def test_an_unfinished_run_is_its_newest_complete_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "trial")
    make_checkpoint(run / "checkpoints", 3)
    newest = make_checkpoint(run / "checkpoints", 12)
    (run / "checkpoints" / "step-00000020").mkdir()  # without its description: not complete
    with caplog.at_level("WARNING", logger="owlcap.export.source"):
        found = find_source(run)
    assert (found.model, found.checkpoint) == (None, newest)
    assert f"the run has not finished (it has no model/): its newest checkpoint is taken, {newest}" in caplog.text
    assert found.config is not None
    assert found.config.name == "trial"


def test_a_chosen_checkpoint_is_that_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "trial")
    chosen = make_checkpoint(run / "checkpoints", 3)
    make_checkpoint(run / "checkpoints", 12)
    assert find_source(chosen).checkpoint == chosen


def test_a_run_without_model_and_checkpoint_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="neither finished nor written a checkpoint") as error:
        find_source(make_run(tmp_path / "trial"))
    assert error.value.cure == "continue it with --resume"


def test_a_checkpoint_outside_of_its_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="outside of its run"):
        find_source(make_checkpoint(tmp_path / "elsewhere", 3))


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_anything_else_names_what_can_be_exported(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError) as error:
        find_source(tmp_path / name)
    assert "a run directory" in (error.value.allowed or "")


def test_a_run_whose_settings_cannot_be_read_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "trial")
    (run / "config.yaml").write_text("kind: sft\nname: [")
    with pytest.raises(ConfigError) as error:
        find_source(run)
    assert error.value.where == str(run / "config.yaml")


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    with pytest.raises(ExportError, match="exists already"):
        export(model, model)
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "model.safetensors"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ExportError, match="cannot be written") as error:
        export(make_model(tmp_path / "model"), tmp_path / "file" / "out")
    assert error.value.where == str(tmp_path / "file" / "out")
