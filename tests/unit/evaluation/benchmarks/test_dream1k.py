"""DREAM-1K: what is asked of the judge, and the published arithmetic beside ours, worked out by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from owlcap.errors import DataError, JudgeError
from owlcap.evaluation.benchmarks.dream1k import Dream1k, DreamCase, figures, official_figures, read_cases, splits
from owlcap.evaluation.benchmarks.run import make_result
from owlcap.evaluation.benchmarks.showing import figure_rows
from owlcap.evaluation.benchmarks.statistics import columns
from owlcap.evaluation.benchmarks.values import ItemScore
from rewards.chat import Question
from tests.unit.evaluation.benchmarks.cases import dream_row, field, item, write_lines
from tests.unit.rewards.scripted_model import ScriptedModel, statements_of

CASE = DreamCase("1", "videvo", "1", "Describe.", 'A Man "waves".', "1", ("the man waves", "the man smiles"))


def script(question: Question[Any]) -> Any:
    """Events are sentences; entailed by a description that has their words, contradicted by "no " before them."""
    description = field(question.prompt, "DESCRIPTION")
    if question.kind == "dream_events":
        return {"events": [one.strip() for one in description.split(".") if one.strip()]}
    return {"events": [{"event": one, "relationship": relation(one, description)} for one in statements_of(question)]}


def relation(event: str, description: str) -> str:
    if f"no {event}" in description:
        return "contradiction"
    return "Entailment" if event in description else "neutral"


def judged(case: DreamCase, text: str, model: ScriptedModel | None = None) -> ItemScore:
    return asyncio.run(Dream1k().judge(model or ScriptedModel(script), case, text))


def test_events_of_each_side_are_checked_against_the_whole_other_text() -> None:
    score = judged(CASE, "The man waves. No the man smiles.")
    assert score.values == {
        "reference_events": 2.0,
        "reference_entailed": 1.0,
        "reference_contradicted": 1.0,
        "caption_events": 2.0,
        "caption_entailed": 0.0,
        "caption_contradicted": 0.0,
    }
    assert [(one.text, one.verdict) for one in score.evidence][:2] == [
        ("reference: the man waves", "entailment"),
        ("reference: the man smiles", "contradiction"),
    ]


def test_three_calls_a_clip_all_in_lower_case_and_a_fourth_for_missing_reference_events() -> None:
    model = ScriptedModel(script)
    judged(CASE, "The MAN waves.", model)
    assert model.kinds() == ["dream_events", "dream_match", "dream_match"]
    assert {field(question.prompt, "DESCRIPTION") for question in model.asked} == {"the man waves.", 'a man "waves".'}
    without = DreamCase("1", "videvo", "1", "Describe.", "A man waves.", "1", None)
    model = ScriptedModel(script)
    judged(without, "The man waves.", model)
    assert model.kinds() == ["dream_events", "dream_events", "dream_match", "dream_match"]


def test_the_cost_counts_the_calls_that_are_made() -> None:
    assert Dream1k().cost(CASE, "The man waves.").num_calls == 3
    assert Dream1k().cost(CASE, " ").num_calls == 2


def test_an_empty_caption_has_no_events_entails_nothing_and_costs_no_call() -> None:
    model = ScriptedModel(script)
    score = judged(CASE, "  ", model)
    assert model.asked == []
    assert (score.values["reference_entailed"], score.values["caption_events"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    "reply",
    [
        {"events": [{"event": "the man waves", "relationship": "entailment"}]},  # one of two
        {"events": [{"event": "a", "relationship": "likely"}, {"event": "b", "relationship": "neutral"}]},
        {"events": ["the man waves", "the man smiles"]},
        "I cannot do that.",
    ],
)
def test_a_reply_that_the_published_script_would_not_take_is_none(reply: Any) -> None:
    model = ScriptedModel(lambda question: reply if question.kind == "dream_match" else script(question))
    with pytest.raises(JudgeError):
        judged(CASE, "The man waves.", model)


def test_ratios_are_averaged_in_subsets_then_over_subsets_and_f1_is_of_the_two_means() -> None:
    scores = [
        item("1", "videvo", reference_events=4, reference_entailed=1, caption_events=2, caption_entailed=2),
        item("2", "videvo", reference_events=2, reference_entailed=1, caption_events=4, caption_entailed=1),
        item("3", "youtube", reference_events=5, reference_entailed=4, caption_events=5, caption_entailed=1),
    ]
    found = figures(columns(scores))
    assert found == official_figures(columns(scores))  # nothing is empty: the two agree
    assert found["videvo/recall"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert found["videvo/precision"] == pytest.approx((1 + 1 / 4) / 2)
    recall, precision = (0.375 + 0.8) / 2, (0.625 + 0.2) / 2
    assert (found["recall"], found["precision"]) == (pytest.approx(recall), pytest.approx(precision))
    assert found["f1"] == pytest.approx(2 * recall * precision / (recall + precision))


def test_an_empty_list_of_events_is_perfect_for_the_script_and_not_for_us() -> None:
    scores = [
        item("1", "videvo", reference_events=2, reference_entailed=1, caption_events=0, caption_entailed=0),
        item("2", "videvo", reference_events=0, reference_entailed=0, caption_events=2, caption_entailed=1),
    ]
    official, ours = official_figures(columns(scores)), figures(columns(scores))
    assert (official["recall"], official["precision"]) == (0.75, 0.75)  # (1/2 + 1) / 2 each
    assert (ours["recall"], ours["precision"]) == (0.5, 0.25)  # 1/2 of one clip; (0 + 1/2) / 2


def test_f1_of_two_zeros_is_no_number_in_the_script() -> None:
    scores = [item("1", "videvo", reference_events=2, reference_entailed=0, caption_events=1, caption_entailed=0)]
    assert official_figures(columns(scores))["f1"] is None
    assert figures(columns(scores))["f1"] == 0.0


def test_clips_are_split_by_their_subjects_shots_and_events_in_the_scripts_bins() -> None:
    one = item("1", "videvo", subjects=0, shots=2, events=3)
    two = item("2", "youtube", subjects=4, shots=2, events=8)
    three = item("3", "youtube", events=6)
    assert [[(score.id, score.group) for score in split] for split in splits([one, two, three])] == [
        [("1", "subjects 0-1"), ("2", "subjects 4+")],
        [("1", "shots 2"), ("2", "shots 2")],
        [("1", "events 0-3"), ("2", "events 8+"), ("3", "events 6-7")],
    ]


def test_the_figures_of_a_bin_are_over_its_clips_of_all_subsets_and_stand_below_all() -> None:
    counts = {"reference_events": 2, "caption_events": 2, "caption_entailed": 1}
    scores = [
        item("1", "videvo", shots=1, reference_entailed=0, **counts),
        item("2", "videvo", shots=1, reference_entailed=1, **counts),
        item("3", "youtube", shots=1, reference_entailed=2, **counts),
        item("4", "youtube", shots=3, reference_entailed=2, **counts),
    ]
    result = make_result("dream1k", "captions", scores, num_resamples=20)
    assert result.figures["shots 0-1/recall"].value == pytest.approx((0 + 0.5 + 1) / 3)
    assert result.figures["recall"].value == pytest.approx((0.25 + 1) / 2)  # what the subsets come to stays as it is
    rows = figure_rows(result, result.figures, result.scores)
    assert [row[0] for row in rows] == ["", "videvo", "youtube", "all", "shots 0-1", "shots 3"]
    assert [row[-1] for row in rows] == ["n", "2", "2", "4", "3", "1"]
    assert rows[-1][1:4] == ("0.667", "1.000", "0.500")  # of one clip: without errors


def test_rows_are_read_as_published(tmp_path: Path) -> None:
    row = dream_row(7, "youtube", "A man waves.", ["the man waves"])
    (case,) = read_cases(write_lines(tmp_path / "dream.jsonl", row, ""))
    assert (case.id, case.group, case.video, case.prompt) == ("7", "youtube", "7", "Describe the video in detail.")
    assert (case.reference, case.events, case.counts) == ("A man waves.", ("the man waves",), ())


def test_the_counts_of_a_clip_go_into_its_score(tmp_path: Path) -> None:
    row = dream_row(7, "youtube", "A man waves.", ["the man waves"])
    row["extra_info"] |= {"n_subjects": 1, "n_shots": 3, "n_events": None}
    (case,) = read_cases(write_lines(tmp_path / "dream.jsonl", row))
    score = judged(case, "The man waves.")
    assert [(name, score.values[name]) for name in ("subjects", "shots")] == [("subjects", 1.0), ("shots", 3.0)]
    assert "events" not in score.values


@pytest.mark.parametrize(
    ("second", "what"),
    [
        ('{"idx": 2, "dataset"', "broken JSON"),
        ("[1]", "no JSON object"),
        (dream_row(1, "youtube", "A man waves.", []), "the id '1' occurs twice"),
        ({"video-1": [{"question": "Who?", "answer": "a man"}]}, "no annotation of DREAM-1K"),
        ({**dream_row(2, "youtube", "A man.", []), "messages": 3}, "another form"),
        ({**dream_row(2, "youtube", "", []), "idx": 2}, "an idx and one reference"),
        ({**dream_row(2, "youtube", "A man.", []), "extra_info": {"events": "waves"}}, "no list of texts"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, second: Any, what: str) -> None:
    path = write_lines(tmp_path / "dream.jsonl", dream_row(1, "youtube", "A man waves.", []), second)
    with pytest.raises(DataError, match=what) as error:
        read_cases(path)
    assert error.value.where == f"{path}:2"


def test_a_file_of_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "dream.jsonl"
    path.write_bytes(json.dumps(dream_row(1, "youtube", "café", []), ensure_ascii=False).encode("utf-16"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_cases(path)
