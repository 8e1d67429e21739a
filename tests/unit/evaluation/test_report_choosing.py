"""Which steps and groups of a run are shown."""

from __future__ import annotations

import pytest

from owlcap.errors import ConfigError
from owlcap.evaluation.run_report.choosing import choose_groups, parse_steps, spread_out
from rl.step import CompletionRow, GroupRow


def group(id: str, *rewards: float | None, failure: str | None = None) -> GroupRow:
    completions = (CompletionRow("A cat.", 3, "stop", reward, 0.0, {}, None, {}) for reward in rewards)
    return GroupRow(1, id, f"{id}.mp4", "A cat sits.", 0, tuple(completions), failure)


STEP = [
    group("plain", 1, 1),
    group("worst", 0, 0),
    group("wide", 0, 2.5),
    group("best", 2, 2),
    group("also plain", 1, 1),
]


def ids(rows: list[GroupRow], count: int) -> list[str]:
    return [one.row.id for one in choose_groups(rows, count)]


def test_the_best_the_worst_and_the_widest_come_before_others() -> None:
    assert ids(STEP, 4) == ["best", "worst", "wide", "plain"]


def test_a_group_may_be_shown_for_several_reasons() -> None:
    (only,) = choose_groups([group("a", 1, 2)], 4)
    assert only.kinds == ("best", "worst", "spread")


def test_one_of_each_kind_comes_before_a_second_of_any() -> None:
    odd = [group("unscored 1", 1, None), group("unscored 2", 1, None), group("failed", failure="VideoError: empty")]
    kinds = [one.kinds for one in choose_groups([*odd, group("best", 3, 2), group("worst", 0, 0)], 4)]
    assert kinds == [("best", "spread"), ("worst",), ("unscored",), ("failed",)]


def test_a_step_in_which_nothing_was_scored_still_has_groups() -> None:
    assert [one.kinds for one in choose_groups([group("a", None), group("b", failure="x")], 4)] == [
        ("unscored",),
        ("failed",),
    ]


def test_steps_are_spread_evenly_with_the_first_and_the_last() -> None:
    assert spread_out(range(1, 1001), 4) == (1, 334, 667, 1000)
    assert spread_out([3, 5], 4) == (3, 5)
    assert spread_out([3, 5, 9], 1) == (9,)


def test_steps_are_named_one_by_one_or_as_ranges() -> None:
    assert parse_steps("1, 50,100-102") == (range(1, 2), range(50, 51), range(100, 103))


@pytest.mark.parametrize("text", ["", "a", "3-", "5-3", "1,,2", "-4", "9999999999"])
def test_other_forms_of_steps_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a list of steps"):
        parse_steps(text)
