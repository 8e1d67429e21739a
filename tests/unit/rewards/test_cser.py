"""CSER arithmetic against numbers worked out by hand."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from owlcap.config import CserSection, RewardsSection
from owlcap.errors import ConfigError, JudgeError
from owlcap.types import Judgement, Label, Sample, Score, Tag, Unit, Unscored
from rewards.cser import CserReward, agrees, f1, score_judgements
from rewards.judges import Judges

LABELS: dict[str, Label] = {"+": "supported", "-": "contradicted", "0": "not_mentioned"}
TAGS: dict[str, Tag] = {"m": "motion", "d": "detail"}


def units(spec: str) -> tuple[Unit, ...]:
    """Units from a spec such as "m+ d- d0": tag and label of each."""
    return tuple(Unit(f"unit {i}", TAGS[tag], LABELS[label]) for i, (tag, label) in enumerate(spec.split()))


def judged(predicted: str, reference: str) -> Judgement:
    return Judgement(units(predicted), units(reference), judge="by hand")


def scored(predicted: str, reference: str, settings: CserSection | None = None) -> Score:
    score = score_judgements([judged(predicted, reference)], settings or CserSection())
    assert isinstance(score, Score)
    return score


# Predicted: 3 motion units (2 supported, 1 contradicted), 4 detail units (2 supported, 1 contradicted, 1 not
# mentioned). Reference: 3 motion units (1 covered), 3 detail units (2 covered).
PREDICTED = "m+ m+ m- d+ d+ d- d0"
REFERENCE = "m+ m0 m0 d+ d+ d-"


def test_lenient_correctness_counts_what_is_not_contradicted():
    metrics = scored(PREDICTED, REFERENCE).metrics
    assert metrics["correctness"] == 0.71  # 5 of 7 = 0.714...
    assert metrics["completeness"] == 0.5  # 3 of 6
    assert metrics["cser"] == pytest.approx(1.21)
    assert metrics["f1"] == pytest.approx(2 * 0.71 * 0.5 / 1.21)


def test_strict_correctness_counts_only_what_is_supported():
    metrics = scored(PREDICTED, REFERENCE, CserSection(match="strict")).metrics
    assert metrics["correctness"] == 0.57  # 4 of 7 = 0.571...
    assert metrics["completeness"] == 0.5


def test_an_omitted_fact_is_not_covered_in_either_mode():
    for match in ("lenient", "strict"):
        assert scored("d+", "d+ d0 d0 d0", CserSection(match=match)).metrics["completeness"] == 0.25


def test_parts_by_tag():
    metrics = scored(PREDICTED, REFERENCE).metrics
    assert metrics["motion_correctness"] == 0.67  # 2 of 3
    assert metrics["motion_completeness"] == 0.33  # 1 of 3
    assert metrics["motion_f1"] == pytest.approx(2 * 0.67 * 0.33 / (0.67 + 0.33))
    assert metrics["detail_correctness"] == 0.75  # 3 of 4, the unmentioned one agrees
    assert metrics["detail_completeness"] == 0.67  # 2 of 3
    assert metrics["detail_f1"] == pytest.approx(2 * 0.75 * 0.67 / (0.75 + 0.67))


@pytest.mark.parametrize(("combine", "value"), [("sum", 1.21), ("f1", 0.71 / 1.21), ("product", 0.355), ("min", 0.5)])
def test_combinations(combine: str, value: float):
    settings = CserSection.model_validate({"combine": combine})
    assert scored(PREDICTED, REFERENCE, settings).value == pytest.approx(value)


def test_tag_weights_change_the_value_and_not_the_metrics():
    score = scored(PREDICTED, REFERENCE, CserSection(motion_weight=3.0))
    # correctness (3 * 2 + 3) / (3 * 3 + 4) = 9/13 = 0.692; completeness (3 * 1 + 2) / (3 * 3 + 3) = 5/12 = 0.417
    assert score.value == pytest.approx(0.69 + 0.42)
    assert score.metrics["cser"] == pytest.approx(1.21)


def test_ratios_are_rounded_to_two_decimals_like_the_released_code():
    assert scored("d+ d- d-", "d+ d+ d0").value == 0.33 + 0.67


def test_a_prediction_without_units_is_worth_zero_and_its_parts_show_what_is_missing():
    score = scored("", "m0 d0")
    assert score.value == 0.0
    assert score.metrics == {
        "cser": 0.0,
        "correctness": 0.0,
        "completeness": 0.0,
        "f1": 0.0,
        "units": 0.0,
        "motion_completeness": 0.0,
        "motion_f1": 0.0,
        "detail_completeness": 0.0,
        "detail_f1": 0.0,
    }


def test_a_caption_without_motion_has_motion_f1_zero_when_the_reference_moves():
    metrics = scored("d+", "d+ m0").metrics
    assert metrics["motion_f1"] == 0.0
    assert "motion_correctness" not in metrics


def test_a_part_that_the_reference_lacks_has_no_completeness_and_no_f1():
    metrics = scored("d+ m-", "d+").metrics
    assert metrics["motion_correctness"] == 0.0
    assert not {"motion_completeness", "motion_f1"} & metrics.keys()


def test_a_reference_without_units_cannot_score():
    outcome = score_judgements([judged("d+", "")], CserSection())
    assert outcome == Unscored("cser", "the reference caption has no unit that counts")


def test_a_reference_whose_units_all_weigh_nothing_cannot_score():
    assert isinstance(score_judgements([judged("d+ m+", "m+")], CserSection(motion_weight=0.0)), Unscored)


def test_the_evidence_comes_with_the_score():
    judgement = judged(PREDICTED, REFERENCE)
    assert cast(Score, score_judgements([judgement], CserSection())).judgements == (judgement,)


@pytest.mark.parametrize(
    ("label", "lenient", "strict"),
    [("supported", True, True), ("contradicted", False, False), ("not_mentioned", True, False)],
)
def test_labels(label: Label, lenient: bool, strict: bool):
    assert agrees(label, "lenient") is lenient
    assert agrees(label, "strict") is strict


def test_f1_of_two_zeros_is_zero():
    assert f1(0.0, 0.0) == 0.0


class OneBadJudge:
    """Agrees with everything; cannot judge the caption "bad"."""

    async def judge(self, predicted: str, reference: str) -> Judgement:
        if predicted == "bad":
            raise JudgeError("no answer", where="judge", cure="start it")
        return judged("d+", "d+")


def test_a_judge_error_leaves_only_its_caption_unscored():
    reward = CserReward(Judges(RewardsSection()), {}, [OneBadJudge()])
    sample = Sample(id="a", video="a.mp4", prompt="", caption="", reference="ref")
    good, bad, also_good = asyncio.run(reward.score_group(sample, ["good", "bad", "good"]))
    assert isinstance(good, Score)
    assert isinstance(also_good, Score)
    assert good.value == also_good.value == 2.0
    assert bad == Unscored("cser", "no answer; where: judge; cure: start it")


def test_two_zero_weights_and_unknown_options_are_refused():
    rewards = RewardsSection(cser=CserSection(motion_weight=0, detail_weight=0))
    with pytest.raises(ConfigError, match="no unit counts"):
        CserReward(Judges(rewards), {}, [OneBadJudge()])
    with pytest.raises(ConfigError, match='unknown option "match"'):
        CserReward(Judges(RewardsSection()), {"match": "strict"}, [OneBadJudge()])
