"""Motion Synergetic Decoding against numbers worked out by hand, the paper's figure, and what must always hold."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from motion.decoding import gumbel, pair_scores, sampling_logits, synergy
from owlcap.config_motion import DecodingSection

DEFAULT = DecodingSection()
FOOT, HAND, FINGERS, ARMS = range(4)
VISUAL, MOTION = (163.0, 133.0, 111.0, 57.0), (38.0, 143.0, 112.0, 108.0)  # bars of the paper's figure


def logits(*weights: float) -> torch.Tensor:
    return torch.tensor([weights]).log()


def score(pv: tuple[float, ...], pm: tuple[float, ...], **changes: object):
    return synergy(logits(*pv), logits(*pm), DecodingSection.model_validate(changes))


# By hand.


def test_the_five_terms_of_a_token_worked_out_by_hand() -> None:
    scored = score((0.6, 0.4), (0.5, 0.5))
    expected = (
        0.5 * (0.8221188 + 0.6487213) / 2,  # e^0.6 - 1, e^0.5 - 1
        0.2 * 0.55,
        -0.4 * 0.0953102,  # log 1.1
        0.8 * 0.6968453,  # 0.3 ^ 0.3
        -2.0 * 0.01,
    )
    assert [float(term[0, 0]) for term in scored.terms] == pytest.approx(expected, abs=1e-6)
    assert float(scored.score[0, 0]) == pytest.approx(0.9770622, abs=1e-6)


def test_probabilities_of_half_precision_are_scored_in_fp32() -> None:
    half = synergy(logits(0.6, 0.4).bfloat16(), logits(0.5, 0.5).bfloat16(), DEFAULT)
    assert half.score.dtype == torch.float32
    assert float(half.visual.exp().sum()) == pytest.approx(1.0, abs=1e-6)


def test_a_weight_of_zero_leaves_its_term_out() -> None:
    scored = score((0.6, 0.4), (0.5, 0.5), alpha=(0, 0.2, 0, 0, 0.3, 0))
    torch.testing.assert_close(scored.score, torch.tensor([[0.11, 0.09]]))


def test_the_largest_and_the_smallest_score_are_those_of_full_agreement_and_full_disagreement() -> None:
    agreed, apart = score((1, 0, 0), (1, 0, 0)), score((1, 0, 0), (0, 1, 0))
    assert float(agreed.score.max()) == pytest.approx(0.5 * (math.e - 1) + 0.2 + 0.8, abs=1e-6)  # 1.859
    assert float(apart.score.min()) == pytest.approx(0.25 * (math.e - 1) + 0.1 - 0.4 * math.log(2) - 2, abs=1e-6)


# The published figure.


def test_the_figure_of_the_paper_visual_decoding_says_foot_and_synergy_says_hand() -> None:
    scored = score(VISUAL, MOTION)
    assert int(scored.visual.argmax()) == FOOT
    assert int(scored.survivors.argmax()) == HAND
    assert scored.score.argsort(descending=True)[0].tolist() == [HAND, FINGERS, ARMS, FOOT]


def test_as_published_the_pruning_would_leave_the_hallucinated_foot_alone() -> None:
    assert score(VISUAL, MOTION, prune="literal").kept[0].nonzero()[:, 0].tolist() == [FOOT]
    assert score(VISUAL, MOTION, prune="relative").kept.all()


# Pruning.


def test_relative_pruning_drops_what_the_visual_branch_finds_improbable() -> None:
    # S of the first token is 1.276: tokens of pv below 0.2 * 2.276 * 0.9 = 0.41 go.
    assert score((0.9, 0.06, 0.04), (0.8, 0.1, 0.1)).kept.tolist() == [[True, False, False]]


def test_union_pruning_keeps_what_either_branch_finds_probable() -> None:
    pv, pm = (0.7, 0.05, 0.25), (0.2, 0.7, 0.1)
    assert score(pv, pm).kept.tolist() == [[True, False, True]]
    assert score(pv, pm, prune="union").kept.tolist() == [[True, True, True]]


def test_literal_pruning_keeps_the_visual_argmax_where_nothing_else_survives() -> None:
    kept = synergy(torch.zeros(1, 50), torch.zeros(1, 50), DecodingSection(prune="literal")).kept
    assert kept.sum() == 1


# Always.

weights = st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=12)
pairs = st.integers(3, 12).flatmap(
    lambda size: st.tuples(*[st.lists(st.floats(-30, 30, width=32), min_size=size, max_size=size)] * 2)
)
prunings = st.sampled_from(["relative", "literal", "union"])


@given(pairs, prunings)
def test_scores_stay_within_their_bounds_and_something_survives(
    pair: tuple[list[float], list[float]], prune: str
) -> None:
    visual, motion = (torch.tensor([one]) for one in pair)
    scored = synergy(visual, motion, DecodingSection.model_validate({"prune": prune}))
    assert float(scored.score.min()) >= -1.75
    assert float(scored.score.max()) <= 1.86
    assert scored.kept.any()
    if prune != "union":
        assert scored.kept[0, int(scored.visual.argmax())]


@given(pairs)
def test_the_score_does_not_tell_the_branches_apart_the_pruning_does(pair: tuple[list[float], list[float]]) -> None:
    visual, motion = (torch.tensor([one]) for one in pair)
    torch.testing.assert_close(synergy(visual, motion, DEFAULT).score, synergy(motion, visual, DEFAULT).score)
    union = DecodingSection(prune="union")
    assert torch.equal(synergy(visual, motion, union).kept, synergy(motion, visual, union).kept)


@given(weights)
def test_branches_that_agree_decode_as_either_would_alone(values: list[float]) -> None:
    same = torch.tensor([values])
    scored = synergy(same, same, DEFAULT)
    best = int(scored.survivors.argmax())
    assert float(scored.visual[0, best]) == pytest.approx(float(scored.visual.max()), abs=1e-4)


@given(pairs, prunings, st.integers(0, 2))
def test_a_banned_token_never_survives(pair: tuple[list[float], list[float]], prune: str, banned: int) -> None:
    visual, motion = (torch.tensor([one]) for one in pair)
    visual[0, banned] = motion[0, banned] = float("-inf")
    scored = synergy(visual, motion, DecodingSection.model_validate({"prune": prune}))
    assert not scored.kept[0, banned]
    assert torch.isfinite(scored.survivors[scored.kept]).all()
    assert torch.isfinite(sampling_logits(scored, DEFAULT, 1.0)[scored.kept]).all()


# Sampling.


def test_calibrated_sampling_adds_the_score_to_the_mean_distribution() -> None:
    scored = score((0.6, 0.4), (0.5, 0.5), beta=0)
    drawn = sampling_logits(scored, DecodingSection(tau=0.5), temperature=2.0)
    s = scored.score[0]
    expected = [(math.log(0.55) + float(s[0]) * 2) / 2, (math.log(0.45) + float(s[1]) * 2) / 2]
    assert drawn[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_synergy_sampling_draws_from_the_softmax_of_the_score() -> None:
    scored = score((0.6, 0.4), (0.5, 0.5))
    assert torch.equal(sampling_logits(scored, DecodingSection(sampling="synergy"), 1.0), scored.survivors)


def test_draws_with_gumbel_noise_follow_the_softmax() -> None:
    wanted = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawn = torch.tensor([int((wanted.log() + gumbel(4, seed=7, step=i)).argmax()) for i in range(4000)])
    assert (torch.bincount(drawn, minlength=4) / 4000 - wanted).abs().max() < 0.03  # seeded: 4 standard errors


def test_a_draw_depends_on_its_seed_and_step_and_on_no_neighbour() -> None:
    visual, motion = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    _, together = pair_scores(visual, motion, DEFAULT, temperature=1.0, seeds=(4, 5, 6), steps=(0, 3, 9))
    _, alone = pair_scores(visual[1:2], motion[1:2], DEFAULT, temperature=1.0, seeds=(5,), steps=(3,))
    torch.testing.assert_close(together[1:2], alone)
    assert not torch.equal(gumbel(20, 5, 3), gumbel(20, 5, 4))


# Settings.


@pytest.mark.parametrize("alpha", [(-0.5, 0.2, 0.4, 0.8, 0.3, 2.0), (0.5, 0.2, 0.4, 0.8, 0.0, 2.0)])
def test_weights_that_make_no_sense_are_refused(alpha: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="alpha"):
        DecodingSection.model_validate({"alpha": alpha})
