"""The page and the tables of a result."""

from __future__ import annotations

from dataclasses import replace

from owlcap.evaluation.benchmarks.page import SHOWN_ITEMS, result_page
from owlcap.evaluation.benchmarks.run import make_result
from owlcap.evaluation.benchmarks.showing import result_text
from owlcap.evaluation.benchmarks.values import BenchmarkResult, Evidence, ItemScore
from owlcap.evaluation.report import ClipProblem


def vdc(count: int = 2, **fields: object) -> BenchmarkResult:
    scores = [
        ItemScore(
            f"short/{i}",
            "short",
            {"accuracy": i / count, "accuracy_exact_yes": i / count, "score": 1.0, "questions": 2.0},
            f"caption {i} <b>",
            "",
            (Evidence("Who waves? a man | a dog", "no 1"),),
        )
        for i in range(count)
    ]
    return make_result("vdc", "m", scores, judge="Llama", num_resamples=20, **fields)  # type: ignore[arg-type]


def test_the_figures_asked_for_come_first_and_the_others_follow() -> None:
    ours, official = result_text(vdc()), result_text(vdc(headline="official"))
    assert ours.index("our figures\n") < ours.index("published script")
    assert official.index("published script") < official.index("our figures\n")
    assert ours.count("short") == official.count("short") == 2


def test_what_is_missing_is_counted_and_named_and_the_result_labelled() -> None:
    text = result_text(vdc(num_cases=7, missing=("a", "b", "c", "d"), failed=(ClipProblem("e", "no reply"),)))
    assert text.splitlines()[0].endswith("(INCOMPLETE)")
    assert "2 of 7 items have figures" in text
    assert "INCOMPLETE: 4 without a text: a, b, c, and 1 more" in text
    assert "INCOMPLETE: 1 not judged, and left out: e (no reply)" in text


def test_what_was_not_judged_can_be_asked_for_again() -> None:
    assert "the same command goes on" in result_text(vdc(failed=(ClipProblem("e", "no reply"),)))


def test_that_both_kinds_of_figures_are_the_same_is_said() -> None:
    same = "our figures and the published script's are the same here"
    result = vdc()
    assert same not in result_text(result)
    assert same in result_text(replace(result, official=result.figures))
    assert same in result_page(replace(result, official=result.figures)).replace("&#39;", "'")


def test_a_complete_result_has_no_such_label() -> None:
    assert "INCOMPLETE" not in result_text(vdc())
    assert "INCOMPLETE" in result_text(vdc(notes=("absent: the category camera",)))


def test_the_page_shows_the_worst_first_with_evidence_and_escapes_captions() -> None:
    page = result_page(vdc())
    assert page.index("short/0") < page.index("short/1")
    assert "caption 0 &lt;b&gt;" in page
    assert 'class="verdict no">no 1<' in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_page_of_thousands_shows_some() -> None:
    page = result_page(vdc(SHOWN_ITEMS + 5))
    assert page.count("<details") == SHOWN_ITEMS
    assert "5 further ones" in page
