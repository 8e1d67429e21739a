"""Keypoint recall: where the key points come from, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from owlcap.types import Sample, Score, Unit, Unscored
from rewards.keypoints import MAX_KEYPOINTS, KeypointReward
from tests.unit.rewards.scripted_model import ScriptedModel, judges_of, literal, score

OF_ROW = Sample("a", "a.mp4", "", "", reference="", keypoints=("A man waves", "He sits", "His hat is red", "He leaves"))
OF_REFERENCE = Sample("a", "a.mp4", "", "", reference="A man waves. He sits.")
CAPTION = "A man waves. His hat is red. not: He sits"


def test_recall_is_the_share_of_the_rows_key_points_that_the_caption_supports():
    model = ScriptedModel(literal)
    (outcome,) = score(KeypointReward(judges_of(model), {}), OF_ROW, CAPTION)
    assert isinstance(outcome, Score)
    assert outcome.value == 0.5
    assert outcome.metrics == {"keypoint_recall": 0.5, "keypoints": 4.0}
    assert outcome.judgements[0].reference_units == (
        Unit("A man waves", "motion", "supported"),
        Unit("He sits", "motion", "contradicted"),
        Unit("His hat is red", "detail", "supported"),
        Unit("He leaves", "motion", "not_mentioned"),
    )
    assert model.kinds() == ["labels"]


def test_a_row_without_key_points_has_those_of_its_reference_asked_for_once_a_group():
    model = ScriptedModel(literal)
    outcomes = score(KeypointReward(judges_of(model), {}), OF_REFERENCE, CAPTION, "A man waves. He sits.", "")
    assert [outcome.value for outcome in outcomes if isinstance(outcome, Score)] == [0.5, 1.0, 0.0]
    assert model.kinds() == ["keypoints", "labels", "labels", "labels"]


BAD_KEYPOINTS: dict[str, Any] = {
    "not JSON": "none",
    "another key": {"events": ["A man waves"]},
    "an empty key point": {"keypoints": [""]},
    "too many": {"keypoints": [str(number) for number in range(MAX_KEYPOINTS + 1)]},
}


@pytest.mark.parametrize("reply", BAD_KEYPOINTS.values(), ids=BAD_KEYPOINTS)
def test_bad_key_points_leave_the_caption_unscored(reply: Any):
    model = ScriptedModel(lambda question: reply if question.kind == "keypoints" else literal(question))
    (outcome,) = score(KeypointReward(judges_of(model), {}), OF_REFERENCE, CAPTION)
    assert isinstance(outcome, Unscored)


@pytest.mark.parametrize("reply", [{"1": "supported"}, {str(n): "supported" for n in range(1, 6)}, {"covered": 4}])
def test_the_judge_cannot_change_the_number_of_key_points(reply: Any):
    (outcome,) = score(KeypointReward(judges_of(ScriptedModel(lambda _: reply)), {}), OF_ROW, CAPTION)
    assert isinstance(outcome, Unscored)
