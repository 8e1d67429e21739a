"""The run directory: complete, never overwritten, truncated on resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import owlcap.runs
from owlcap.config import RlRun, SftRun
from owlcap.errors import ConfigError
from owlcap.runs import RunDir, git_commit, versions


def sft_run(folder: Path, **changes: object) -> SftRun:
    settings: dict[str, object] = {
        "name": "toy",
        "run_dir": str(folder),
        "model": {"path": "model"},
        "data": {"train": "train.jsonl"},
        "optimizer": {"lr": 1e-3},
    }
    return SftRun.model_validate(settings | changes)


def started(cfg: SftRun | RlRun, resume: bool = False) -> RunDir:
    run = RunDir.create(cfg, resume)
    run.record(cfg)
    return run


def test_a_new_run_holds_its_settings_and_versions(tmp_path: Path) -> None:
    cfg = sft_run(tmp_path)
    run = started(cfg)
    assert run.path == tmp_path / "toy"
    assert SftRun.model_validate(yaml.safe_load(run.config_file.read_text())) == cfg
    recorded = json.loads(run.versions_file.read_text())
    assert recorded["packages"]["verl"] == "0.9.1"
    for folder in (run.tensorboard, run.rollouts, run.evaluations, run.checkpoints, run.logs):
        assert folder.is_dir()


def test_an_rl_run_reads_back_equal(tmp_path: Path) -> None:
    cfg = RlRun.model_validate(
        sft_run(tmp_path).model_dump(exclude={"sft", "kind"}) | {"algorithm": {"clip_ratio": 0.3}}
    )
    run = started(cfg)
    assert RlRun.model_validate(yaml.safe_load(run.config_file.read_text())) == cfg


@pytest.mark.parametrize("result", ["metrics.jsonl", "model", "checkpoints/step-00000001"])
def test_a_run_with_results_is_not_overwritten(tmp_path: Path, result: str) -> None:
    run = started(sft_run(tmp_path))
    (run.path / result).mkdir()
    with pytest.raises(ConfigError, match="exists already") as caught:
        RunDir.create(sft_run(tmp_path, seed=1))
    assert "--resume" in str(caught.value)
    assert yaml.safe_load((tmp_path / "toy" / "config.yaml").read_text())["seed"] == 0


def test_a_run_that_failed_before_any_result_may_start_again(tmp_path: Path) -> None:
    started(sft_run(tmp_path))
    run = started(sft_run(tmp_path, seed=1))
    assert yaml.safe_load(run.config_file.read_text())["seed"] == 1


def test_a_refused_start_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    run = RunDir.create(sft_run(tmp_path))
    (run.logs / "driver.log").touch()
    with pytest.raises(ConfigError), run.locked():
        raise ConfigError("no cluster")
    assert not run.path.exists()


def test_what_a_refused_start_did_not_make_stays(tmp_path: Path) -> None:
    run = RunDir.create(sft_run(tmp_path))
    (run.path / "notes.txt").touch()
    with pytest.raises(ConfigError), run.locked():
        raise ConfigError("no cluster")
    assert [path.name for path in run.path.iterdir()] == ["notes.txt"]


def test_a_start_that_was_recorded_stays(tmp_path: Path) -> None:
    run = started(sft_run(tmp_path))
    with pytest.raises(ConfigError), run.locked():
        raise ConfigError("no engine")
    assert run.config_file.exists()
    assert run.logs.exists()


def test_a_run_that_does_not_exist_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run 'toy' to resume"):
        RunDir.create(sft_run(tmp_path), resume=True)
    assert list(tmp_path.iterdir()) == []


def test_resuming_with_other_settings_keeps_the_old_ones(tmp_path: Path) -> None:
    started(sft_run(tmp_path))
    run = started(sft_run(tmp_path), resume=True)
    assert not (run.path / "config.1.yaml").exists()
    started(sft_run(tmp_path, seed=1), resume=True)
    assert yaml.safe_load((run.path / "config.1.yaml").read_text())["seed"] == 0
    assert yaml.safe_load(run.config_file.read_text())["seed"] == 1


def test_a_start_on_other_versions_keeps_the_first_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(sft_run(tmp_path))
    first = run.versions_file.read_text()
    monkeypatch.setattr(owlcap.runs.time, "strftime", lambda *_: "later")
    started(sft_run(tmp_path), resume=True)
    assert run.versions_file.read_text() == first  # nothing but the time is new
    monkeypatch.setattr(owlcap.runs, "git_commit", lambda: "0123abc")
    started(sft_run(tmp_path), resume=True)
    assert (run.path / "versions.1.json").read_text() == first
    assert json.loads(run.versions_file.read_text())["git_commit"] == "0123abc"


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        RunDir.create(sft_run(tmp_path, run_dir=str(tmp_path / "file")))


def test_a_run_in_what_a_job_uploaded_would_be_deleted_with_it(tmp_path: Path) -> None:
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    with pytest.raises(ConfigError, match="deleted after the job"):
        RunDir.create(sft_run(copy))
    assert not copy.exists()


def test_the_commit_of_a_copied_tree_is_what_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owlcap.runs, "__file__", str(tmp_path / "owlcap" / "runs.py"))
    monkeypatch.delenv("OWLCAP_COMMIT", raising=False)
    assert git_commit() is None
    monkeypatch.setenv("OWLCAP_COMMIT", "0123abc")
    assert git_commit() == "0123abc"


def test_truncation_drops_later_steps_and_a_torn_last_line(tmp_path: Path) -> None:
    run = started(sft_run(tmp_path))
    rows = [json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in (1, 2, 2, 3)]
    run.metrics_file.write_text("".join(rows) + '{"step": 2, "tra')
    for step in (2, 3):
        run.rollouts_file(step).write_text("")
        run.evaluation_file(step).write_text("")
        run.evaluation_file(step, sampled=True).write_text("")
    run.truncate_after(2)
    assert [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()] == [1, 2, 2]
    assert [file.name for file in run.rollouts.iterdir()] == ["step_000002.jsonl"]
    assert sorted(file.name for file in run.evaluations.iterdir()) == ["step_000002.json", "step_000002.sampled.json"]


def test_versions_name_packages_that_are_absent_as_null() -> None:
    assert versions()["packages"]["ray"] == "2.60.0"  # type: ignore[index]
    commit = git_commit()
    assert commit is None or len(commit.removesuffix("+changes")) == 40


HOLD = """
import sys
from pathlib import Path
from owlcap.runs import RunDir
with RunDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_in_use_is_refused_and_free_again_when_its_process_has_ended(tmp_path: Path) -> None:
    run = started(sft_run(tmp_path))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"in use by process {holder.pid}"), run.locked():
        pass
    holder.kill()
    holder.communicate()
    with run.locked():
        assert (run.path / ".lock").read_text() == f"{os.getpid()}\n"
