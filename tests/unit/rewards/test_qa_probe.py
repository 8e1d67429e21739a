"""QA probe: questions answered from the caption only."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from owlcap.types import Choice, Sample, Score, Unit, Unscored
from rewards.chat import InvalidReply, Question
from rewards.qa_probe import QaProbeReward, read_answers, shuffled
from tests.unit.rewards.scripted_model import ScriptedModel, caption_of, judges_of, score

QUESTIONS = (
    Choice("Who waves?", ("a man", "a girl", "a dog"), "a girl"),
    Choice("What colour is the coat?", ("red", "blue"), "blue"),
)
SAMPLE = Sample("a", "a.mp4", "", "", reference="A girl in a blue coat waves.", questions=QUESTIONS)


def reads(question: Question[Any]) -> dict[str, str]:
    """Chooses the option whose words stand in the caption, else none."""
    answers: dict[str, str] = {}
    for line in question.prompt.partition("QUESTIONS:")[2].splitlines():
        if asked := re.match(r"(\d+)\. ", line):
            number = asked[1]
            answers[number] = "none"
        elif (option := re.match(r"   ([A-Z])\. (.*)", line)) and json.loads(option[2]) in caption_of(question):
            answers[number] = option[1]
    return answers


def test_the_value_is_the_share_answered_right_from_the_caption():
    model = ScriptedModel(reads)
    outcomes = score(
        QaProbeReward(judges_of(model), {}),
        SAMPLE,
        "Here is a girl in blue.",
        "Here is a man in blue.",
        "Someone waves.",
        "Here is a man in red.",
    )
    assert [outcome.value for outcome in outcomes if isinstance(outcome, Score)] == [1.0, 0.5, 0.0, 0.0]
    assert [outcome.metrics["qa_unanswered"] for outcome in outcomes if isinstance(outcome, Score)] == [0, 0, 1, 0]
    assert model.kinds() == ["qa_probe"] * 4


def test_the_evidence_tells_wrong_from_unanswered():
    (outcome,) = score(QaProbeReward(judges_of(ScriptedModel(reads)), {}), SAMPLE, "Here is a man in blue.")
    assert isinstance(outcome, Score)
    assert outcome.judgements[0].reference_units == (
        Unit("Who waves? a man", "motion", "contradicted"),
        Unit("What colour is the coat? blue", "detail", "supported"),
    )


def test_a_row_without_questions_is_unscored_with_a_reason():
    (outcome,) = score(QaProbeReward(judges_of(ScriptedModel(reads)), {}), Sample("a", "", "", "", ""), "A man.")
    assert outcome == Unscored("qa_probe", "the row has no questions")


def test_the_reference_is_not_shown():
    model = ScriptedModel(reads)
    score(QaProbeReward(judges_of(model), {}), SAMPLE, "Someone waves.")
    assert SAMPLE.reference not in model.asked[0].prompt
    assert 'answer":' not in model.asked[0].prompt.partition("QUESTIONS:")[2]


def test_options_are_shuffled_alike_whatever_order_the_row_has_them_in():
    turned = Choice("Who waves?", ("a dog", "a girl", "a man"), "a girl")
    assert shuffled(QUESTIONS[0]) == shuffled(turned)


def test_right_answers_get_every_letter_about_as_often():
    options = ("red", "blue", "green", "black")
    letters = [shuffled(Choice(f"Colour of thing {n}?", options, "red")).options.index("red") for n in range(400)]
    assert all(70 <= letters.count(letter) <= 130 for letter in range(4))


BAD: dict[str, Any] = {
    "not JSON": "A",
    "one answer missing": '{"1": "A"}',
    "one answer too many": '{"1": "A", "2": "A", "3": "A"}',
    "a letter beyond the options": '{"1": "A", "2": "C"}',
    "a small letter": '{"1": "a", "2": "A"}',
    "the option's text": '{"1": "a girl", "2": "blue"}',
    "a number": '{"1": 1, "2": 2}',
    "null": '{"1": null, "2": "A"}',
}


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD)
def test_a_bad_reply_is_invalid_and_leaves_the_caption_unscored(reply: str):
    with pytest.raises(InvalidReply):
        read_answers(reply, questions=QUESTIONS)
    (outcome,) = score(QaProbeReward(judges_of(ScriptedModel(lambda _: reply)), {}), SAMPLE, "A girl.")
    assert isinstance(outcome, Unscored)


def test_the_schema_allows_each_questions_own_letters_and_none():
    model = ScriptedModel(reads)
    score(QaProbeReward(judges_of(model), {}), SAMPLE, "A girl.")
    schema = model.asked[0].schema
    assert schema is not None
    assert {number: one["enum"] for number, one in schema["properties"].items()} == {
        "1": ["A", "B", "C", "none"],
        "2": ["A", "B", "none"],
    }
