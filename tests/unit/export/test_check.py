"""The comparison's arithmetic and its verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from owlcap.errors import ExportError
from owlcap.export.check import CheckFigures, compare, judge_figures

OUT, SOURCE = Path("out"), Path("source")
GOOD = CheckFigures("fp32", 10, source_max=0.0, vllm_max=2e-6, vllm_mean=5e-7, caption="a man waves")


def test_figures_are_largest_and_mean_differences_of_single_tokens() -> None:
    vllms = ((-1.0, -2.0), (-3.0,))
    ours = ((-1.1, -2.0), (-2.7,))
    theirs = ((-1.1, -2.5), (-2.7,))
    figures = compare("bf16", vllms, ours, theirs, "a man waves")
    assert (figures.dtype, figures.num_tokens, figures.caption) == ("bf16", 3, "a man waves")
    assert figures.source_max == pytest.approx(0.5)
    assert figures.vllm_max == pytest.approx(0.3)
    assert figures.vllm_mean == pytest.approx(0.4 / 3)


def test_a_nan_among_good_differences_is_not_lost() -> None:
    vllms, nan = ((-1.0, -2.0, -3.0),), ((-1.0, math.nan, -3.0),)
    assert math.isnan(compare("fp32", vllms, nan, vllms, "").source_max)
    assert math.isnan(compare("fp32", nan, vllms, vllms, "").vllm_max)


def test_completions_of_another_length_are_never_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare("fp32", ((-1.0, -2.0),), ((-1.0,),), ((-1.0,),), "")


def test_figures_within_tolerance_pass() -> None:
    judge_figures(GOOD, OUT, SOURCE)


@pytest.mark.parametrize("difference", [2e-5, 1.0, math.nan])
def test_weights_that_are_not_the_sources_are_refused_with_the_figure(difference: float) -> None:
    with pytest.raises(ExportError, match="not the source's") as error:
        judge_figures(replace(GOOD, source_max=difference), OUT, SOURCE)
    assert f"{difference:.3g}" in error.value.what
    assert error.value.where == "out, made from source"


@pytest.mark.parametrize(
    "figures",
    [
        replace(GOOD, vllm_max=2e-4),
        replace(GOOD, vllm_max=math.nan),
        replace(GOOD, dtype="bf16", vllm_max=0.6),
        replace(GOOD, dtype="bf16", vllm_max=0.4, vllm_mean=0.06),  # no single token far off, but all of them a bit
    ],
)
def test_an_engine_that_computes_something_else_is_refused(figures: CheckFigures) -> None:
    with pytest.raises(ExportError, match="vLLM does not reproduce the policy"):
        judge_figures(figures, OUT, SOURCE)


def test_bf16_may_round_at_other_places() -> None:
    judge_figures(replace(GOOD, dtype="bf16", vllm_max=0.2, vllm_mean=0.02), OUT, SOURCE)
