"""Curves and the time of a run."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from owlcap.evaluation.run_report.curves import MAX_POINTS, all_figures, means, panels, thinned
from owlcap.evaluation.run_report.reading import Point, RunContents, read_run
from owlcap.evaluation.run_report.timing import MAX_COLUMNS, timing


def points(*values: float) -> list[Point]:
    return [Point(step, value) for step, value in enumerate(values, 1)]


def run_with(folder: Path, **columns: list[float]) -> RunContents:
    """A run that logged these figures, "/" written as "__"."""
    lines = [
        json.dumps(
            {"step": step, "time": 0.0}
            | {name.replace("__", "/"): value for name, value in zip(columns, values, strict=True)}
        )
        for step, values in enumerate(zip(*columns.values(), strict=True), 1)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return read_run(folder)


def test_a_thinned_curve_has_both_ends_and_every_spike() -> None:
    values = [0.5] * 5000
    values[1234], values[4321] = 9.0, -9.0
    few = thinned(points(*values), MAX_POINTS)
    assert len(few) <= MAX_POINTS
    assert few[0].step, few[-1].step == (1, 5000)
    assert {Point(1235, 9.0), Point(4322, -9.0)} <= set(few)
    assert few == sorted(few, key=lambda point: point.step)


def test_a_short_curve_is_not_thinned() -> None:
    assert thinned(points(3, 1, 2), 3) == points(3, 1, 2)


def test_a_long_curve_has_means_of_neighbouring_steps_over_it(tmp_path: Path) -> None:
    assert means(points(*[1.0, 3.0] * 60)) == [Point(step, 2.0) for step in range(1, 120, 2)]
    (long,) = panels(run_with(tmp_path, train__kl=[1.0, 3.0] * 500))
    (short,) = panels(run_with(tmp_path, train__kl=[1.0, 3.0]))
    assert long.curves[0].mean
    assert not short.curves[0].mean


def test_a_path_goes_from_the_first_step_to_the_last_and_up_to_the_highest_value(tmp_path: Path) -> None:
    (panel,) = panels(run_with(tmp_path, train__kl=[0.0, 2.0, 1.0]))
    (curve,) = panel.curves
    assert curve.path == "M0 1000L500 0L1000 500"
    assert json.loads(curve.points) == [[1, 0.0], [2, 2.0], [3, 1.0]]
    assert (panel.first_step, panel.last_step, panel.low, panel.high) == (1, 3, 0.0, 2.0)


def test_a_value_that_never_changes_is_drawn_in_the_middle(tmp_path: Path) -> None:
    (panel,) = panels(run_with(tmp_path, train__lr=[1e-4, 1e-4]))
    assert panel.curves[0].path == "M0 500L1000 500"


def test_a_figure_that_never_leaves_zero_is_in_the_table_only(tmp_path: Path) -> None:
    contents = run_with(tmp_path, judge__usd=[0.0, 0.0], rollout__mine=[1.0, 3.0])
    assert panels(contents) == ()
    usd, mine = all_figures(contents.figures)
    assert (usd.name, mine.name) == ("judge/usd", "rollout/mine")
    assert (mine.first, mine.last, mine.lowest, mine.highest, mine.num_points) == (1.0, 3.0, 1.0, 3.0, 2)


def test_a_phases_share_of_a_run_is_weighted_by_the_length_of_steps(tmp_path: Path) -> None:
    contents = run_with(tmp_path, seconds__step=[1.0, 3.0], share__generate=[1.0, 0.0], share__update=[0.0, 1.0])
    spent = timing(contents.figures)
    assert spent is not None
    shares = {phase.name: phase.share for phase in spent.phases}
    assert shares == pytest.approx({"generate": 0.25, "judge": 0, "update": 0.75, "sync": 0, "wait": 0})
    assert (spent.num_steps, spent.seconds) == (2, 4.0)


def test_a_long_run_has_few_columns_that_cover_all_steps(tmp_path: Path) -> None:
    contents = run_with(tmp_path, seconds__step=[2.0] * 1001, share__update=[1.0] * 1001)
    spent = timing(contents.figures)
    assert spent is not None
    assert len(spent.columns) <= MAX_COLUMNS
    ends = [(column.first_step, column.last_step) for column in spent.columns]
    assert ends[0][0] == 1
    assert ends[-1][1] == 1001
    assert all(after[0] == before[1] + 1 for before, after in pairwise(ends))


def test_steps_without_shares_have_no_timing() -> None:
    assert timing({"seconds/step": points(1.0, 2.0)}) is None
