"""A run's folder is read as far as it can be; what is missing or broken is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from owlcap.config import VideoSection
from owlcap.errors import ConfigError
from owlcap.evaluation.run_report.reading import Point, read_rollouts, read_run, section_of
from owlcap.runs import RunDir
from tests.report_run import make_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path, [Path("clip.mp4")])


def test_a_whole_run_has_no_problems(run: RunDir) -> None:
    contents = read_run(run.path)
    assert contents.problems == ()
    assert contents.config["name"] == "made"
    assert contents.rollout_steps == (1, 2, 3)
    assert contents.last_step == 3
    assert contents.figures["train/kl"] == (Point(1, 0.01), Point(2, 0.02), Point(3, 0.03))
    assert [(step, sampled) for step, sampled, _ in contents.evaluations] == [(0, False), (3, False)]


def test_a_folder_that_is_no_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run's"):
        read_run(tmp_path)
    with pytest.raises(ConfigError, match="there is no such run"):
        read_run(tmp_path / "gone")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("name", "harm", "problem"),
    [
        ("config.yaml", Path.unlink, "config.yaml cannot be read: No such file or directory"),
        ("config.yaml", lambda file: file.write_text("a: [1"), "config.yaml is broken: "),
        ("config.yaml", lambda file: file.write_text("[1, 2]"), "config.yaml is broken: not a mapping"),
        ("versions.json", Path.unlink, "versions.json cannot be read: No such file or directory"),
        ("versions.json", _cut, "versions.json is broken: "),
        ("metrics.jsonl", Path.unlink, "metrics.jsonl cannot be read: No such file or directory"),
        ("metrics.jsonl", lambda file: file.write_text(""), "metrics.jsonl is empty"),
        ("rollouts/step_000002.jsonl", lambda file: file.write_text(""), "rollouts/step_000002.jsonl is empty"),
        ("metrics.jsonl", _cut, "metrics.jsonl, line 5, left out: not a row of figures, or cut short"),
        ("metrics.jsonl", lambda file: file.write_text("3\n"), "metrics.jsonl, line 1, left out: not a row"),
        ("metrics.jsonl", lambda file: file.write_text('{"step": Infinity}\n'), "metrics.jsonl, line 1, left out"),
        ("evaluations/step_000003.json", _cut, "evaluations/step_000003.json is left out: not a caption report"),
    ],
)
def test_a_missing_or_half_written_part_is_named(
    run: RunDir, name: str, harm: Callable[[Path], object], problem: str
) -> None:
    harm(run.path / name)
    (said,) = read_run(run.path).problems
    assert said.startswith(problem)


def test_values_that_were_not_finite_are_left_out_and_counted(run: RunDir) -> None:
    with run.metrics_file.open("a") as file:
        file.write('{"step": 4, "time": 1, "train/kl": null}\n')
    contents = read_run(run.path)
    assert [point.step for point in contents.figures["train/kl"]] == [1, 2, 3]
    assert contents.problems == ("train/kl: 1 values were not finite and are left out",)


def test_many_problems_of_one_file_are_counted(run: RunDir) -> None:
    run.metrics_file.write_text("broken\n" * 1000)
    problems = read_run(run.path).problems
    assert len(problems) == 4
    assert problems[-1] == "metrics.jsonl: 997 more of this kind"


def test_earlier_settings_are_shown_by_what_was_changed(run: RunDir) -> None:
    text = run.config_file.read_text()
    (run.path / "config.1.yaml").write_text(text.replace("num_steps: 3", "num_steps: 2"))
    (older,) = read_run(run.path).older_configs
    assert older.name == "config.1.yaml"
    assert {"-num_steps: 2", "+num_steps: 3"} <= set(older.changes)


def test_a_broken_section_falls_back_to_its_defaults_and_says_so(run: RunDir) -> None:
    run.config_file.write_text("video: {fps: fast}")
    video, problem = section_of(read_run(run.path), VideoSection, "video")
    assert video == VideoSection()
    assert problem is not None
    assert "video cannot be read" in problem


def test_rows_of_captions_come_back_as_they_were_written(run: RunDir) -> None:
    rows, wrong = read_rollouts(run.rollouts_file(2))
    assert wrong == []
    assert [row.id for row in rows] == ["clip-0", "clip-1", "clip-2", "broken"]
    judgement = rows[0].completions[0].parts["cser"].judgements[0]
    assert judgement.predicted_units[0].label == "supported"
    assert rows[3].failure == "VideoError: the file is empty"


def test_rows_that_are_cut_short_or_of_another_form_are_named(run: RunDir) -> None:
    file = run.rollouts_file(1)
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([b'{"id": "a"}', *lines[1:3], lines[3][:50]]))
    rows, wrong = read_rollouts(file)
    assert [row.id for row in rows] == ["clip-1", "clip-2"]
    assert wrong[0].startswith("rollouts/step_000001.jsonl, line 1, left out: step: Field required")
    assert wrong[1].startswith("rollouts/step_000001.jsonl, line 4, left out: Invalid JSON")
