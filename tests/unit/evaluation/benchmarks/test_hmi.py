"""HMI-Bench: five rated respects and their plain mean; questions with accuracy and balanced accuracy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from owlcap.errors import DataError
from owlcap.evaluation.benchmarks import hmi_captions, hmi_qa
from owlcap.evaluation.benchmarks.catalogue import load_hmi
from owlcap.evaluation.benchmarks.statistics import columns
from rewards.chat import InvalidReply
from tests.unit.evaluation.benchmarks.cases import item
from tests.unit.rewards.scripted_model import ScriptedModel

RATINGS = {"details": 7, "interaction": 5, "motivation": 3, "micro_expression": 0, "attributes": 10}
QA_ROW = {
    "video": "videos/a.mp4",
    "QA": [
        {"question": "What does the man lift?", "answer": "A box."},
        {"question": "The man jumps.", "answer": "False. He walks."},
        {"question": "The man walks.", "answer": "true"},
    ],
}


def write(path: Path, rows: Any) -> Path:
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
    return path


def test_ratings_come_in_one_call_and_overall_is_their_plain_mean(tmp_path: Path) -> None:
    path = write(tmp_path / "HMI-Bench.json", [{"video": "videos/a.mp4", "caption": "A man walks."}])
    (case,) = hmi_captions.read_cases(path)
    model = ScriptedModel(lambda question: RATINGS)
    score = asyncio.run(hmi_captions.HmiCaptions().judge(model, case, "A man runs."))
    assert len(model.asked) == hmi_captions.HmiCaptions().cost(case, "A man runs.").num_calls == 1
    found = hmi_captions.figures(columns([score]))
    assert (found["details"], found["micro_expression"], found["overall"]) == (7.0, 0.0, 5.0)


@pytest.mark.parametrize("odd", [{"details": 11}, {"details": "7"}, {"details": None}])
def test_a_rating_outside_the_scale_is_asked_for_again(odd: dict[str, Any]) -> None:
    with pytest.raises(InvalidReply, match="details"):
        hmi_captions.read_ratings(json.dumps(RATINGS | odd))


def test_which_of_its_two_files_is_given_is_seen_from_what_is_in_it(tmp_path: Path) -> None:
    captions = write(tmp_path / "a.json", [{"video": "videos/a.mp4", "caption": "A man walks."}])
    assert load_hmi([captions], None).benchmark.name == "hmi-bench"
    assert load_hmi([write(tmp_path / "b.json", [QA_ROW])], None).benchmark.name == "hmi-bench-qa"


def test_questions_are_open_or_true_false_by_their_right_answers(tmp_path: Path) -> None:
    cases, _ = hmi_qa.read_cases(write(tmp_path / "qa.json", [QA_ROW]))
    assert [(case.id, case.group, case.reference) for case in cases] == [
        ("videos/a.mp4#1", "open", "A box."),
        ("videos/a.mp4#2", "true_false", "false"),
        ("videos/a.mp4#3", "true_false", "true"),
    ]


def test_only_open_answers_are_asked_about(tmp_path: Path) -> None:
    cases, _ = hmi_qa.read_cases(write(tmp_path / "qa.json", [QA_ROW]))
    model = ScriptedModel(lambda question: {"pred": "yes", "score": 5})
    answers = ("a box", "True", "Yes, he does.")
    scores = [asyncio.run(hmi_qa.HmiQa().judge(model, case, said)) for case, said in zip(cases, answers, strict=True)]
    assert [score.values["correct"] for score in scores] == [1.0, 0.0, 1.0]
    assert model.kinds() == ["answer_check"]


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("True", True),
        ("**False**, he sits.", False),
        ("no", False),
        ("It is true.", None),
        ("", None),
        ("untrue", None),
    ],
)
def test_the_first_word_of_a_true_false_answer_decides(answer: str, truth: bool | None) -> None:
    assert hmi_qa.said_truth(answer) is truth


def test_always_saying_true_has_a_balanced_accuracy_of_one_half() -> None:
    scores = [item(str(i), "true_false", correct=float(i < 3), truth=float(i < 3)) for i in range(4)]  # 3 true, 1 false
    scores.append(item("9", "open", correct=0.0, score=1.0))
    found = hmi_qa.figures(columns(scores))
    assert found["true_false/accuracy"] == 0.75
    assert found["true_false/balanced_accuracy"] == 0.5
    assert (found["open/accuracy"], found["accuracy"]) == (0.0, 0.6)


def test_a_video_with_an_empty_list_of_questions_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "qa.json", [QA_ROW, {"video": "videos/b.mp4", "QA": []}])
    cases, notes = hmi_qa.read_cases(path)
    assert len(cases) == 3
    assert notes == [f"absent: questions of videos/b.mp4 ({path}, item 2)"]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([QA_ROW, QA_ROW], "occurs twice"),
        ([QA_ROW, {"video": "b", "QA": [{"question": "Who?"}]}], "question 1 lacks question or answer"),
        ([{"video": "b", "QA": []}], "no video has a question"),
        ([], "no rows"),
        ('[{"video": "b"},\n {"video" "c"}]', "broken JSON"),
        ([3], "no JSON object"),
    ],
)
def test_bad_questions_are_told(tmp_path: Path, rows: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        hmi_qa.read_cases(write(tmp_path / "qa.json", rows))


def test_another_benchmarks_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no annotation of HMI-Bench"):
        load_hmi([write(tmp_path / "dream.jsonl", {"idx": 1, "dataset": "DREAM/youtube"})], None)


def test_what_the_model_is_asked_does_not_hold_the_right_answer(tmp_path: Path) -> None:
    cases, _ = hmi_qa.read_cases(write(tmp_path / "qa.json", [QA_ROW]))
    assert cases[0].prompt == "What does the man lift?\nAnswer with a short sentence."
    assert cases[1].prompt == "The man jumps.\nAnswer with the one word true or false."
