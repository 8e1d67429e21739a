"""VDC: both steps, the categories, and the published drop of zeros beside our mean."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from owlcap.errors import ConfigError, DataError, JudgeError
from owlcap.evaluation.benchmarks.answers import read_verdict
from owlcap.evaluation.benchmarks.page import result_page
from owlcap.evaluation.benchmarks.run import make_result
from owlcap.evaluation.benchmarks.showing import result_text
from owlcap.evaluation.benchmarks.statistics import columns
from owlcap.evaluation.benchmarks.values import ItemScore
from owlcap.evaluation.benchmarks.vdc import Vdc, VdcCase, annotation_files, figures, official_figures, read_cases
from rewards.chat import InvalidReply, Question
from tests.unit.evaluation.benchmarks.cases import field, item, write_lines
from tests.unit.rewards.scripted_model import ScriptedModel

PAIRS = (("Who waves?", "a man"), ("Where?", "in a park"))
CASE = VdcCase("short/v1", "short", "v1", "Describe.", "", "v1", PAIRS)


def script(question: Question[Any]) -> Any:
    """The caption is the answer; it is right when it has the right answer's words."""
    if question.kind == "answer":
        return field(question.prompt, "DESCRIPTION")
    right = field(question.prompt, "CORRECT ANSWER") in field(question.prompt, "GIVEN ANSWER")
    return "{'pred': 'yes', 'score': 4}" if right else "{'pred': 'no', 'score': 1}"


def judged(text: str, model: ScriptedModel) -> ItemScore:
    return asyncio.run(Vdc().judge(model, CASE, text))


def test_each_question_is_answered_from_the_caption_and_the_answer_compared() -> None:
    model = ScriptedModel(script)
    score = judged("a man waves", model)
    assert score.values == {"accuracy": 0.5, "accuracy_exact_yes": 0.5, "score": 2.5, "questions": 2.0}
    assert model.kinds() == ["answer", "answer", "answer_check", "answer_check"]
    assert Vdc().cost(CASE, "a man waves").num_calls == 4


def test_the_answer_step_does_not_see_the_right_answer() -> None:
    model = ScriptedModel(script)
    judged("something", model)
    assert not any("in a park" in question.prompt for question in model.asked if question.kind == "answer")


def test_an_empty_caption_answers_nothing_and_costs_no_call() -> None:
    model = ScriptedModel(script)
    assert judged(" ", model).values["accuracy"] == 0.0
    assert model.asked == []


def test_one_question_without_a_verdict_leaves_the_whole_video_out_as_in_the_script() -> None:
    def broken(question: Question[Any]) -> Any:
        second = question.kind == "answer_check" and "Where?" in question.prompt
        return "no idea" if second else script(question)

    with pytest.raises(JudgeError):
        judged("a man waves", ScriptedModel(broken))


def test_a_video_without_questions_cannot_be_judged() -> None:
    empty = VdcCase("short/v2", "short", "v2", "Describe.", "", "v2", ())
    with pytest.raises(JudgeError, match="no questions"):
        asyncio.run(Vdc().judge(ScriptedModel(script), empty, "a man"))


def test_categories_are_means_of_videos_and_the_headline_is_their_plain_mean() -> None:
    scores = [
        item("short/1", "short", accuracy=0.5, accuracy_exact_yes=0.5, score=2.0),
        item("short/2", "short", accuracy=0.0, accuracy_exact_yes=0.0, score=1.0),
        item("camera/1", "camera", accuracy=0.8, accuracy_exact_yes=0.8, score=0.0),
        item("camera/2", "camera", accuracy=0.2, accuracy_exact_yes=0.2, score=3.0),
    ]
    ours, official = figures(columns(scores)), official_figures(columns(scores))
    assert (ours["short/accuracy"], ours["camera/accuracy"], ours["accuracy"]) == (0.25, 0.5, 0.375)
    assert ours["score"] == pytest.approx((1.5 + 1.5) / 2)
    # The script drops short/2 (accuracy 0) and camera/1 (score 0).
    assert (official["short/accuracy"], official["camera/accuracy"]) == (0.5, 0.2)
    assert (official["accuracy"], official["score"]) == (pytest.approx(0.35), pytest.approx(2.5))


def test_the_number_beside_official_figures_is_of_the_videos_that_they_are_means_of() -> None:
    scores = [
        item("short/1", "short", accuracy=0.5, accuracy_exact_yes=0.5, score=2.0),
        item("short/2", "short", accuracy=0.0, accuracy_exact_yes=0.0, score=1.0),
        item("short/3", "short", accuracy=0.5, accuracy_exact_yes=0.5, score=0.0),
    ]
    result = make_result("vdc", "x", scores, headline="official")

    rows = [line.split() for line in result_text(result).splitlines() if line.startswith("short ")]

    assert [row[-1] for row in rows] == ["1", "3"]  # the script's table, then ours
    assert result.official["short/accuracy"].standard_error is None  # of one video
    told = "the published script leaves 2 of them out of its means: accuracy or score 0"
    assert told in result_text(result)
    assert told in result_page(result)


def test_a_category_of_zeros_alone_has_no_official_figure() -> None:
    scores = [item("short/1", "short", accuracy=0.0, accuracy_exact_yes=0.0, score=0.0)]
    assert official_figures(columns(scores))["short/accuracy"] is None
    assert figures(columns(scores))["short/accuracy"] == 0.0


@pytest.mark.parametrize(
    ("reply", "agrees", "exact", "score"),
    [
        ("{'pred': 'yes', 'score': 4.8}", True, True, 4.8),
        ('{"pred": "Yes", "score": 3}', True, False, 3.0),
        ("Sure! {'pred': 'no', 'score': '2'}", False, False, 2.0),
    ],
)
def test_verdicts_are_read_as_python_or_json(reply: str, agrees: bool, exact: bool, score: float) -> None:
    verdict = read_verdict(reply)
    assert (verdict.agrees, verdict.said_yes, verdict.score) == (agrees, exact, score)


@pytest.mark.parametrize("reply", ["{'pred': 'maybe', 'score': 1}", "{'pred': 'yes'}", "{'pred': 'yes', 'score': 9}"])
def test_other_verdicts_are_asked_for_again(reply: str) -> None:
    with pytest.raises(InvalidReply):
        read_verdict(reply)


def questions(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"question": question, "answer": answer, "category": ""} for question, answer in pairs]


def test_files_are_told_apart_by_their_names_and_absent_categories_are_said(tmp_path: Path) -> None:
    write_lines(tmp_path / "vdc_short_sample.jsonl", {"v1": questions(*PAIRS)})
    write_lines(tmp_path / "main_object.jsonl", {"v1": questions(PAIRS[0])})
    write_lines(tmp_path / "captions.jsonl", {"id": "v1"})  # in the folder, but of no category
    files = annotation_files([tmp_path])
    cases, notes = read_cases(files)
    assert [(case.id, len(case.questions)) for case in cases] == [("short/v1", 2), ("main_object/v1", 1)]
    assert notes == ["absent: the category camera", "absent: the category background", "absent: the category detailed"]


def test_of_an_id_that_a_file_has_twice_the_last_one_counts_as_in_the_script(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "short.jsonl", {"v1": questions(PAIRS[0])}, {"v1": questions(PAIRS[1])})
    cases, notes = read_cases({"short": path})
    assert [case.questions for case in cases] == [(PAIRS[1],)]
    assert any("occur twice, the last one counts: v1" in note for note in notes)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"v1": [', "broken JSON"),
        ({"idx": 1, "dataset": "DREAM/youtube"}, "no annotation of VDC"),
        ({"v1": [{"question": "Who?"}]}, "no annotation of VDC"),
        ({"v1": [{"question": "Who?", "answer": 3}]}, "must be texts"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, row: Any, what: str) -> None:
    path = write_lines(tmp_path / "short.jsonl", {"v0": questions(*PAIRS)}, row)
    with pytest.raises(DataError, match=what) as error:
        read_cases({"short": path})
    assert error.value.where == f"{path}:2"


def test_files_of_no_category_or_two_of_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no category"):
        annotation_files([tmp_path / "DREAM-1k.jsonl"])
    with pytest.raises(ConfigError, match="two files of the category short"):
        annotation_files([tmp_path / "short.jsonl", tmp_path / "vdc_short.jsonl"])
