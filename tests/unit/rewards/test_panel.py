"""Several judges: votes and disagreement, worked out by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from owlcap.config import CserSection, RewardsSection
from owlcap.errors import JudgeError
from owlcap.types import Judgement, Label, Sample, Score, Unit, Unscored
from rewards.base import Judge
from rewards.cser import CserReward, score_judgements
from rewards.judges import Judges
from rewards.panel import Vote, majority, spread

LABELS: Mapping[str, Label] = {"+": "supported", "-": "contradicted", "0": "not_mentioned"}
SAMPLE = Sample(id="a", video="a.mp4", prompt="", caption="", reference="A man waves.")


def units(labels: str) -> tuple[Unit, ...]:
    return tuple(Unit(f"unit {number}", "detail", LABELS[label]) for number, label in enumerate(labels))


def judged(predicted: str, reference: str, name: str = "m") -> Judgement:
    return Judgement(units(predicted), units(reference), judge=name, reply_ids=(f"chat-{name}",))


def scored(*judgements: Judgement, vote: Vote = "mean", settings: CserSection | None = None) -> Score:
    score = score_judgements(judgements, settings or CserSection(), vote)
    assert isinstance(score, Score)
    return score


# CSER: 0.5 + 0.5, 1 + 1, 0.5 + 1
THREE = judged("+-", "+0"), judged("+0", "++"), judged("-+", "++")


def test_the_mean_of_all_judges():
    score = scored(*THREE)
    assert score.value == pytest.approx((1.0 + 2.0 + 1.5) / 3)
    assert score.metrics["correctness"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert score.metrics["completeness"] == pytest.approx((0.5 + 1 + 1) / 3)


def test_the_median_of_all_judges():
    score = scored(*THREE, vote="median")
    assert score.value == 1.5
    assert score.metrics["correctness"] == 0.5
    assert score.metrics["completeness"] == 1.0


@pytest.mark.parametrize(("vote", "value"), [("mean", (0.5 + 1 + 0.5) / 3), ("median", 0.5), ("majority", 1.0)])
def test_each_judges_value_is_combined_before_the_vote_and_the_majoritys_after(vote: Vote, value: float):
    # the smaller ratio of each judge: 0.5, 1, 0.5; of the majority's labels: 1
    assert scored(*THREE, vote=vote, settings=CserSection(combine="min")).value == pytest.approx(value)


def test_tag_weights_hold_for_every_judge():
    motion = Unit("waves", "motion", "contradicted")
    one = Judgement((*units("+"), motion), units("+"), judge="m")
    other = Judgement((*units("-"), motion), units("+"), judge="n")
    # correctness of the detail units alone: 1 and 0; completeness 1
    assert scored(one, other, settings=CserSection(motion_weight=0.0)).value == pytest.approx((2.0 + 1.0) / 2)


def test_the_median_of_two_is_between_them():
    assert scored(*THREE[:2], vote="median").value == 1.5


def test_the_majority_of_labels():
    # predicted: unit 0 "+", "+", "-" is supported; unit 1 "-", "0", "+" has no majority and is not mentioned
    # reference: unit 0 "+" thrice; unit 1 "0", "+", "+" is supported
    assert [unit.label for unit in majority(THREE).predicted_units] == ["supported", "not_mentioned"]
    assert [unit.label for unit in majority(THREE).reference_units] == ["supported", "supported"]
    assert scored(*THREE, vote="majority").value == 1.0 + 1.0
    assert scored(*THREE, vote="majority", settings=CserSection(match="strict")).value == 0.5 + 1.0


@pytest.mark.parametrize(
    ("labels", "winner"),
    [("++-", "+"), ("--0", "-"), ("00+", "0"), ("+-0", "0"), ("+-", "0"), ("++--", "0"), ("+++--", "+"), ("-", "-")],
)
def test_a_label_needs_more_than_half_of_the_judges(labels: str, winner: str):
    voted = majority([judged(label, "+") for label in labels])
    assert voted.predicted_units[0].label == LABELS[winner]


def test_the_evidence_is_every_judges_own():
    assert scored(*THREE, vote="majority").judgements == THREE


def test_disagreement_is_the_share_of_units_labelled_differently():
    # of 4 units, predicted 0 and 1 and reference 1 differ; CSER from 1 to 2
    assert spread(THREE, [1.0, 2.0, 1.5]) == {"judge_spread": 1.0, "judge_disagreement": 0.75}
    metrics = scored(*THREE).metrics
    assert (metrics["judge_spread"], metrics["judge_disagreement"]) == (1.0, 0.75)


def test_judges_of_other_units_have_a_spread_and_no_disagreement():
    assert spread([judged("+", "+"), judged("++", "+")], [2.0, 1.0]) == {"judge_spread": 1.0}


def test_judges_who_agree_have_neither():
    assert spread(THREE[:1] * 2, [1.0, 1.0]) == {"judge_spread": 0.0, "judge_disagreement": 0.0}


def test_one_judge_has_no_panel_figures():
    assert not {"judge_spread", "judge_disagreement", "judges_missing"} & scored(THREE[0]).metrics.keys()


class Says:
    def __init__(self, answer: Judgement | JudgeError) -> None:
        self._answer = answer

    async def judge(self, predicted: str, reference: str) -> Judgement:
        if isinstance(self._answer, JudgeError):
            raise self._answer
        return self._answer


def asked(*answers: Judgement | JudgeError, vote: Vote = "mean") -> Score | Unscored:
    members: list[Judge] = [Says(answer) for answer in answers]
    reward = CserReward(Judges(RewardsSection(panel_vote=vote)), {}, members)
    (outcome,) = asyncio.run(reward.score_group(SAMPLE, ["A man waves."]))
    return outcome


GONE = JudgeError("no answer", where="judge x")


@pytest.mark.parametrize("vote", ["mean", "median", "majority"])
def test_a_member_that_fails_is_counted_and_the_others_decide(vote: Vote):
    outcome = asked(THREE[0], GONE, THREE[0], vote=vote)
    assert isinstance(outcome, Score)
    assert outcome.value == 1.0
    assert outcome.metrics["judges_missing"] == 1.0
    assert len(outcome.judgements) == 2


@pytest.mark.parametrize("answers", [(THREE[0], GONE), (THREE[0], GONE, GONE), (THREE[0], THREE[0], GONE, GONE)])
def test_half_of_a_panel_is_not_enough(answers: tuple[Judgement | JudgeError, ...]):
    assert asked(*answers) == Unscored("cser", "no answer; where: judge x")


def test_a_whole_panel_has_none_missing():
    outcome = asked(*THREE)
    assert isinstance(outcome, Score)
    assert outcome.metrics["judges_missing"] == 0.0
