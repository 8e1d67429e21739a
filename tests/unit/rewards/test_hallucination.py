"""Error rate: missed, incorrect and hallucinated statements."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from owlcap.config import RewardsSection
from owlcap.types import Sample, Score
from rewards.hallucination import HallucinationReward
from rewards.judges import Judges
from rewards.staged import StagedJudge
from tests.unit.rewards.scripted_model import ScriptedModel, judges_of, literal, score

SAMPLE = Sample("a", "a.mp4", "", "", reference="A man waves. not: He sits. He leaves. A dog barks. The sky is blue.")


def outcome_of(caption: str) -> Score:
    (outcome,) = score(HallucinationReward(judges_of(ScriptedModel(literal)), {}), SAMPLE, caption)
    assert isinstance(outcome, Score)
    return outcome


def test_the_three_counts_by_hand():
    # "He sits" is contradicted, "A cat sleeps" is invented; of the five, "A man waves" alone is told.
    outcome = outcome_of("A man waves. He sits. A cat sleeps.")
    assert outcome.metrics == {
        "missed_rate": pytest.approx(4 / 5),
        "incorrect_rate": pytest.approx(1 / 5),
        "hallucinated_rate": pytest.approx(1 / 5),
        "error_rate": pytest.approx(6 / 5),
    }
    assert outcome.value == pytest.approx(-1 / 5)


def test_a_caption_that_says_all_and_nothing_else_has_no_errors():
    assert outcome_of(SAMPLE.reference).value == 1.0


def test_an_empty_caption_misses_all():
    assert outcome_of("").metrics["error_rate"] == 1.0


def test_every_invented_statement_costs_the_same_whatever_else_is_said():
    invented = [outcome_of("A man waves." + " ".join(f" Lie {n}." for n in range(count))).value for count in range(4)]
    assert [round(b - a, 6) for a, b in pairwise(invented)] == [-0.2, -0.2, -0.2]


def test_its_questions_are_those_of_staged_cser():
    model = ScriptedModel(literal)
    asyncio.run(StagedJudge(model, model).judge("A man waves.", SAMPLE.reference))
    num_asked = len(model.asked)
    score(HallucinationReward(judges_of(model), {}), SAMPLE, "A man waves.")
    assert len(model.asked) == num_asked == 4


def test_the_lexical_judge_serves_too():
    sample = Sample("a", "a.mp4", "", "", reference="Someone in a red shirt jumps.")
    exact, empty = score(HallucinationReward(Judges(RewardsSection()), {}), sample, sample.reference, "")
    assert isinstance(exact, Score)
    assert isinstance(empty, Score)
    assert (exact.value, empty.value) == (1.0, 0.0)
