"""Means, standard errors and paired differences against numbers worked out by hand; files that survive a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from owlcap.errors import ConfigError, DataError
from owlcap.evaluation.report import (
    CaptionReport,
    ClipProblem,
    ClipRow,
    Figure,
    load_report,
    make_report,
    mean_and_error,
    paired_difference,
    save_report,
)
from owlcap.evaluation.table import render_table


def row(id_: str, **metrics: float) -> ClipRow:
    return ClipRow(id_, (f"caption of {id_}",), f"reference of {id_}", metrics)


def report(name: str = "greedy", **by_clip: dict[str, float]) -> CaptionReport:
    return make_report(name, [row(id_, **metrics) for id_, metrics in by_clip.items()])


def test_mean_and_standard_error_of_three_clips() -> None:
    # mean 2; squared deviations 1 + 0 + 1; sample variance 1; standard error sqrt(1/3)
    figure = mean_and_error([1.0, 2.0, 3.0])
    assert figure.mean == pytest.approx(2.0)
    assert figure.standard_error == pytest.approx(0.57735027)
    assert figure.num_clips == 3


def test_one_clip_has_a_mean_but_no_standard_error() -> None:
    assert mean_and_error([0.25]) == Figure(0.25, None, 1)


def test_a_clip_without_motion_units_leaves_the_motion_mean_and_is_counted() -> None:
    made = report(a={"f1": 0.5, "motion_f1": 1.0}, b={"f1": 1.0}, c={"f1": 0.0, "motion_f1": 0.0})
    assert made.figure("f1") == Figure(0.5, pytest.approx(0.28867513), 3)
    assert made.figure("motion_f1") == Figure(0.5, pytest.approx(0.5), 2)


def test_failed_and_unscored_clips_count_among_the_clips_but_not_in_the_means() -> None:
    made = make_report(
        "greedy",
        [row("a", cser=1.0)],
        failed=[ClipProblem("b", "video is truncated")],
        unscored=[ClipProblem("c", "x")],
    )
    assert (made.num_clips, made.num_scored, made.num_failed, made.num_unscored) == (3, 1, 1, 1)
    assert made.mean("cser") == 1.0
    assert made.scalars() == {"cser": 1.0, "num_clips": 3.0, "num_scored": 1.0, "num_failed": 1.0, "num_unscored": 1.0}


def test_paired_difference_uses_only_clips_of_both_reports() -> None:
    before = report("before", a={"cser": 1.0}, b={"cser": 1.5}, c={"cser": 0.0})
    after = report("after", a={"cser": 1.5}, b={"cser": 1.6}, d={"cser": 2.0})
    # differences 0.5 and 0.1: mean 0.3, sample variance 0.08, standard error sqrt(0.04)
    difference = paired_difference(before, after, "cser")
    assert difference.mean == pytest.approx(0.3)
    assert difference.standard_error == pytest.approx(0.2)
    assert difference.num_clips == 2


def test_reports_without_a_shared_clip_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match="no clip has a figure 'cser' in both"):
        paired_difference(report(a={"cser": 1.0}), report(b={"cser": 1.0}), "cser")


def test_an_unknown_figure_names_those_there_are() -> None:
    with pytest.raises(ConfigError) as error:
        report(a={"cser": 1.0, "f1": 0.5}).mean("bleu")
    assert error.value.allowed == "cser, f1"


def test_a_report_reads_back_as_it_was_written(tmp_path: Path) -> None:
    made = make_report(
        "greedy", [row("b", cser=0.1), row("a", cser=0.7)], failed=[ClipProblem("c", "no video: größer")]
    )
    assert load_report(save_report(made, tmp_path / "new" / "report.json")) == made


def test_a_failed_write_leaves_the_old_report_and_no_leftovers(tmp_path: Path) -> None:
    path = save_report(report(a={"cser": 1.0}), tmp_path / "report.json")
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_report(report(a={"cser": float("nan")}), path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_a_file_that_is_no_report_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"loss": 1.0}))
    with pytest.raises(DataError, match="not a caption report") as error:
        load_report(path)
    assert error.value.where == str(path)


def test_the_table_of_one_report_shows_figures_counts_and_problem_clips() -> None:
    made = make_report("greedy", [row("a", cser=1.0), row("b", cser=2.0)], failed=[ClipProblem("c", "no video")])
    text = render_table(made)
    assert "1.500 ± 0.500" in text
    assert "2 of 3 clips scored, 1 without caption, 0 unscored: c (no video)" in text


def test_the_table_of_two_reports_shows_the_signed_paired_difference() -> None:
    before = report("before", a={"cser": 1.0, "motion_f1": 0.0}, b={"cser": 1.0})
    after = report("after", a={"cser": 0.5}, b={"cser": 0.9})
    lines = {line.split()[0]: line for line in render_table(before, after).splitlines()}
    assert "-0.300 ± 0.200" in lines["cser"]
    assert lines["motion_f1"].split() == ["motion_f1", "0.000", "-", "-", "0"]
