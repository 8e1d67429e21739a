"""Bootstrap: its standard error is that of theory where theory has one; pairs cancel what both sides share."""

from __future__ import annotations

import numpy as np
import pytest

from owlcap.evaluation.benchmarks.statistics import columns, mean, paired_differences, with_errors
from owlcap.evaluation.benchmarks.values import Columns, ItemScore
from tests.unit.evaluation.benchmarks.cases import item


def average(table: Columns) -> dict[str, float | None]:
    return {"mean": mean(np.concatenate([values["x"] for values in table.values()]))}


def items(values: np.ndarray, group: str = "a") -> list[ItemScore]:
    return [item(f"{group}{i}", group, x=float(value)) for i, value in enumerate(values)]


def test_the_error_of_a_mean_is_the_standard_deviation_over_the_root_of_n() -> None:
    values = np.random.default_rng(1).normal(size=400)
    found = with_errors(items(values), average)["mean"]
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std() / 20, rel=0.1)
    assert found.low is not None
    assert found.high is not None
    assert found.low < values.mean() < found.high


def test_equal_runs_give_equal_errors() -> None:
    scores = items(np.arange(10.0))
    assert with_errors(scores, average) == with_errors(scores, average)


def test_groups_keep_their_sizes_in_every_resample() -> None:
    scores = items(np.zeros(3), "a") + items(np.ones(5), "b")
    assert with_errors(scores, average)["mean"].standard_error == 0.0  # every resample has 3 zeros and 5 ones


def test_one_item_has_no_error() -> None:
    assert with_errors(items(np.ones(1)), average)["mean"].standard_error is None


def test_a_group_of_one_item_has_none_though_others_have() -> None:
    def by_group(table: Columns) -> dict[str, float | None]:
        return {f"{group}/mean": mean(values["x"]) for group, values in table.items()}

    found = with_errors(items(np.ones(1), "a") + items(np.arange(5.0), "b"), by_group)
    assert found["a/mean"].standard_error is None
    assert found["b/mean"].standard_error is not None


def test_an_item_without_a_value_is_left_out_of_its_mean() -> None:
    scores = [item("1", "a", x=1.0), item("2", "a", y=3.0)]
    assert mean(columns(scores)["a"]["x"]) == 1.0


def test_a_constant_gain_is_certain_however_much_the_items_differ() -> None:
    values = np.random.default_rng(1).normal(scale=10, size=50)
    difference, p = paired_differences(items(values), items(values + 0.5), average)["mean"]
    assert difference.value == pytest.approx(0.5)
    assert difference.standard_error == pytest.approx(0.0, abs=1e-9)
    assert p == pytest.approx(2 / 1001)  # no smaller one can be told from 1,000 resamples


def test_no_difference_is_told_as_none() -> None:
    values = np.random.default_rng(1).normal(size=50)
    difference, p = paired_differences(items(values), items(values), average)["mean"]
    assert (difference.value, p) == (0.0, 1.0)


def test_only_items_of_both_sides_are_compared_whatever_their_order() -> None:
    first, second = items(np.array([1.0, 2.0, 3.0])), items(np.array([2.0, 3.0]))[::-1]
    assert paired_differences(first, second, average)["mean"][0].value == pytest.approx(1.0)
