"""Two results: paired, labelled, and refused where they do not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from owlcap.errors import ConfigError, DataError
from owlcap.evaluation.benchmarks.comparing import compare_results, comparison_text, told_apart
from owlcap.evaluation.benchmarks.run import make_result
from owlcap.evaluation.benchmarks.saving import load_result, save_result
from owlcap.evaluation.benchmarks.values import BenchmarkResult, Evidence, ItemScore
from owlcap.evaluation.report import ClipProblem, ClipRow, make_report, save_report


def dream(name: str, entailed: dict[str, int], **fields: object) -> BenchmarkResult:
    """Clips of one subset with four events on each side, so many of the reference's entailed."""
    scores = [
        ItemScore(
            id_,
            "videvo",
            {"reference_events": 4.0, "reference_entailed": float(n), "caption_events": 4.0, "caption_entailed": 2.0},
            "text",
            "reference",
            (Evidence("caption: a man waves", "neutral"),),
        )
        for id_, n in entailed.items()
    ]
    return make_result("dream1k", name, scores, judge="j", num_resamples=50, **fields)  # type: ignore[arg-type]


def test_figures_are_of_the_shared_items_on_both_sides() -> None:
    first = dream("base", {"1": 1, "2": 2, "3": 4})
    second = dream("tuned", {"1": 2, "2": 3})
    found = compare_results(first, second, num_resamples=50)
    recall = found.differences["recall"]
    assert (recall.first, recall.second, recall.difference.value) == (0.375, 0.625, 0.25)
    assert recall.p == pytest.approx(2 / 51)  # one event more in every clip
    assert (found.num_shared, found.num_only_first, found.num_only_second) == (2, 1, 0)
    text = comparison_text(found)
    assert "+0.250 ± 0.000" in text
    assert "2 items in both; 1 only in base, 0 only in tuned, and left out" in text


def test_incomplete_results_and_different_judges_are_said() -> None:
    first = dream("base", {"1": 1}, missing=("2",))
    found = compare_results(first, replace(dream("tuned", {"1": 2}), judge="other"), num_resamples=10)
    assert found.notes[0] == "base is INCOMPLETE"
    assert "different judges" in found.notes[1]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("runs/base/eval", "runs/mine/eval"), ("base/eval", "mine/eval")),
        (("runs/eval/base", "runs/eval/mine"), ("base", "mine")),
        (("runs", "runs/mine"), ("runs", "mine")),
    ],
)
def test_results_of_equal_names_are_told_apart_by_their_paths(paths: tuple[str, str], names: tuple[str, str]) -> None:
    both = (dream("captions", {"1": 1}), dream("captions", {"1": 2}))
    assert tuple(one.name for one in told_apart(both, (Path(paths[0]), Path(paths[1])))) == names


def test_results_of_different_names_keep_them() -> None:
    both = (dream("base", {"1": 1}), dream("mine", {"1": 2}))
    assert told_apart(both, (Path("a"), Path("b"))) == both


def test_results_that_do_not_belong_together_are_refused() -> None:
    one = dream("base", {"1": 1})
    with pytest.raises(ConfigError, match="different benchmarks"):
        compare_results(one, replace(one, benchmark="vdc"))
    with pytest.raises(ConfigError, match="no item in common"):
        compare_results(one, dream("tuned", {"2": 1}))


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = dream("base", {"1": 1, "2": 2}, missing=("3",), failed=(ClipProblem("4", "why"),), notes=("a note",))
    save_result(result, tmp_path / "result.json")
    assert load_result(tmp_path) == result
    assert not load_result(tmp_path / "result.json").is_complete


def test_reports_of_eval_captions_are_compared_too(tmp_path: Path) -> None:
    for name, value in (("a", 0.25), ("b", 0.75)):
        save_report(make_report(name, [ClipRow("1", ("x",), "y", {"cser": value})]), tmp_path / f"{name}.json")
    found = compare_results(load_result(tmp_path / "a.json"), load_result(tmp_path / "b.json"))
    assert found.differences["cser"].difference.value == 0.5


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "it is no whole JSON, line 1: "),
        ("[]", "it has neither a benchmark nor a report's rows"),
        ('{"benchmark": "other"}', "unknown benchmark 'other'"),
        ('{"benchmark": "vdc"}', "it has no 'scores'"),
        ('{"figures": 1}', "it has neither a benchmark nor a report's rows"),
        ('{"rows": 1}', "it has no 'name'"),
        ("3", "a part of it has another form"),
    ],
)
def test_another_file_is_no_result(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(DataError) as error:
        load_result(tmp_path)
    assert what in error.value.what
    assert error.value.cure
