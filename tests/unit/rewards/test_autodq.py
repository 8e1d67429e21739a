"""AutoDQ: events, strict entailment both ways, and what is made of the two ratios."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from owlcap.errors import ConfigError
from owlcap.types import Sample, Score, Unit, Unscored
from rewards.autodq import AutoDqReward
from rewards.chat import InvalidReply
from rewards.events import MAX_EVENTS, EventJudge, entailed, read_items
from tests.unit.rewards.scripted_model import ScriptedModel, judges_of, literal, score

SAMPLE = Sample("a", "a.mp4", "", "", reference="A man waves. He sits. He leaves. A dog barks.")
# 2 of 4 reference events are in it, and 2 of its 3 events are in the reference; the third is contradicted.
CAPTION = "A man waves. He leaves. not: He sits"


def value_of(caption: str, **options: Any) -> Score:
    (outcome,) = score(AutoDqReward(judges_of(ScriptedModel(literal)), options), SAMPLE, caption)
    assert isinstance(outcome, Score)
    return outcome


def test_precision_recall_and_f1_by_hand():
    outcome = value_of(CAPTION)
    assert outcome.metrics == {
        "autodq_precision": pytest.approx(2 / 3),
        "autodq_recall": 0.5,
        "autodq_f1": pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5)),
        "autodq_events": 3.0,
    }
    assert outcome.value == outcome.metrics["autodq_f1"]


def test_vidbridge_weighs_recall_twice_as_much():
    assert value_of(CAPTION, combine="vidbridge").value == pytest.approx(0.5 + 0.5 * 2 / 3)


@pytest.mark.parametrize("caption", ["", "..."])
@pytest.mark.parametrize("combine", ["f1", "vidbridge"])
def test_a_caption_without_events_is_worth_nothing(caption: str, combine: str):
    assert value_of(caption, combine=combine).value == 0.0


def test_the_evidence_holds_every_event_with_its_label():
    (judgement,) = value_of(CAPTION).judgements
    assert judgement.predicted_units[0] == Unit("A man waves", "motion", "supported")
    assert [unit.label for unit in judgement.reference_units] == [
        "supported",
        "contradicted",
        "supported",
        "not_mentioned",
    ]


def test_an_option_beyond_the_two_is_refused():
    with pytest.raises(ConfigError, match="combine"):
        AutoDqReward(judges_of(ScriptedModel(literal)), {"combine": "sum"})


def test_reference_events_are_asked_for_once_a_group():
    model = ScriptedModel(literal)
    score(AutoDqReward(judges_of(model), {}), SAMPLE, "A man waves.", "He leaves.")
    assert model.kinds() == ["events"] * 3 + ["labels"] * 4


def test_known_reference_events_are_not_extracted():
    model = ScriptedModel(literal)
    judgement = asyncio.run(EventJudge(model).judge("A man waves.", SAMPLE.reference, reference_events=["He sits"]))
    assert judgement.reference_units == (Unit("He sits", "motion", "not_mentioned"),)
    assert model.kinds() == ["events", "labels", "labels"]


def test_an_event_said_twice_counts_once():
    assert read_items('{"events": ["A man waves", "a man  Waves."]}', key="events", max_items=9) == ("A man waves",)


BAD_EVENTS = {
    "no JSON": "The man waves.",
    "cut off": '{"events": ["the man',
    "no list": '{"events": "the man waves"}',
    "another key": '{"event": ["the man waves"]}',
    "an event that is a number": '{"events": [1]}',
    "an empty event": '{"events": [" "]}',
    "too many": '{"events": [' + ", ".join(f'"event {n}"' for n in range(MAX_EVENTS + 1)) + "]}",
    "two objects": '{"events": []} {"events": ["the man waves"]}',
}


@pytest.mark.parametrize("reply", BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_a_bad_list_of_events_is_invalid_and_leaves_the_caption_unscored(reply: str):
    with pytest.raises(InvalidReply):
        read_items(reply, key="events", max_items=MAX_EVENTS)
    model = ScriptedModel(lambda question: reply if question.kind == "events" else literal(question))
    (outcome,) = score(AutoDqReward(judges_of(model), {}), SAMPLE, CAPTION)
    assert isinstance(outcome, Unscored)


BAD_LABELS = {
    "too few": {"1": "supported"},
    "too many": {str(n): "supported" for n in range(1, 6)},
    "unknown label": {str(n): "entailment" for n in range(1, 5)},
    "a list": ["supported"] * 4,
}


@pytest.mark.parametrize("reply", BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_labels_leave_the_caption_unscored(reply: Any):
    model = ScriptedModel(lambda question: reply if question.kind == "labels" else literal(question))
    (outcome,) = score(AutoDqReward(judges_of(model), {}), SAMPLE, CAPTION)
    assert isinstance(outcome, Unscored)


def test_no_events_have_no_share():
    assert entailed(()) is None
