"""Hack monitors: each figure by hand, one warning a crossing, and the held-out judge beside the reward's."""

from __future__ import annotations

import asyncio
import math

import pytest

from owlcap.config import CacheSection, JudgeSection, MonitorsSection, RewardsSection, RewardTerm
from owlcap.types import (
    Completion,
    Judgement,
    RewardBreakdown,
    RolloutGroup,
    Sample,
    Score,
    ScoredGroup,
    ScoredRollout,
    Unit,
    Unscored,
)
from rewards.monitors import FIRST_STEPS, MonitorState, length_correlation, watch
from rewards.suite import make_suite
from tools.judge_server import MODEL, Behaviour, JudgeServer

OFF = MonitorsSection(
    length_correlation=None,
    repetition=None,
    unit_ratio=None,
    unit_growth=None,
    judge_spread=None,
    judge_disagreement=None,
    held_out_gap=None,
)
UNSCORED = Unscored("cser", "no answer")


def group(*rollouts: tuple[ScoredRollout, int]) -> ScoredGroup:
    """Scores with their numbers of tokens."""
    completions = tuple(Completion((1,) * n, (-0.5,) * n, "a", "stop", 0) for _, n in rollouts)
    sample = Sample("clip", "a.mp4", "", "", "")
    return ScoredGroup(RolloutGroup(sample, completions), tuple(score for score, _ in rollouts))


def total(value: float) -> RewardBreakdown:
    return RewardBreakdown(value, {})


def figures(**metrics: float) -> ScoredGroup:
    return group((RewardBreakdown(1.0, {}, metrics), 3))


def units(predicted: int, reference: int) -> ScoredGroup:
    unit = Unit("a cat sits", "motion", "supported")
    judgement = Judgement((unit,) * predicted, (unit,) * reference, "judge")
    return group((RewardBreakdown(1.0, {"cser": Score(1.0, judgements=(judgement,))}), 3))


def test_length_correlation_is_taken_within_groups():
    """Rewards rise with length between the two groups and fall within each."""
    groups = [group((total(1.0), 4), (total(2.0), 2)), group((total(11.0), 40), (total(12.0), 38))]
    assert length_correlation(groups) == pytest.approx(-1.0)


def test_length_correlation_by_hand():
    """Less their means: rewards -1, 0, 1 and lengths -1, 1, 0; r = 1 / (sqrt 2 * sqrt 2)."""
    assert length_correlation([group((total(0.0), 1), (total(1.0), 3), (total(2.0), 2))]) == pytest.approx(0.5)


def test_unscored_rollouts_have_no_part_in_the_correlation():
    groups = [group((total(0.0), 1), (UNSCORED, 900), (total(1.0), 3), (total(2.0), 2))]
    assert length_correlation(groups) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [group((total(1.0), 2), (total(2.0), 4))],
        [group((total(0.1), 2), (total(0.1), 4), (total(0.1), 5))],
        [group((total(0.1), 7), (total(0.2), 7), (total(0.4), 7))],
    ],
    ids=["no groups", "too few", "equal rewards", "equal lengths"],
)
def test_without_variance_there_is_no_correlation(groups: list[ScoredGroup]):
    assert length_correlation(groups) is None


def test_every_figure_of_a_step():
    step = [
        figures(repetition=0.2, judge_spread=0.5, judge_disagreement=0.25, cser=1.5, held_out_cser=1.0),
        figures(repetition=0.4, judge_spread=0.1, cser=0.5),
        units(6, 2),
        units(2, 2),
        units(5, 0),
    ]
    values = watch(step, OFF, MonitorState()).values
    assert values == {
        "monitor/repetition": pytest.approx(0.3),
        "monitor/unit_ratio": pytest.approx(2.0),
        "monitor/judge_spread": pytest.approx(0.3),
        "monitor/judge_disagreement": pytest.approx(0.25),
        "monitor/held_out_gap": pytest.approx(0.5),  # over the rollouts that both judged
    }


def test_units_are_compared_with_the_first_steps():
    state = MonitorState()
    for _ in range(FIRST_STEPS):
        watched = watch([units(2, 2)], OFF, state)
        assert "monitor/unit_growth" not in watched.values
        state = watched.state
    watched = watch([units(6, 2)], OFF, state)
    assert watched.values["monitor/unit_growth"] == pytest.approx(3.0)
    assert watched.state == state


def test_a_crossing_warns_once_until_the_figure_falls_back():
    thresholds, state = OFF.model_copy(update={"repetition": 0.3}), MonitorState()
    warned = []
    for repetition in (0.3, 0.31, 0.5, None, 0.4, 0.2, 0.6):
        watched = watch([figures() if repetition is None else figures(repetition=repetition)], thresholds, state)
        warned.append(len(watched.warnings))
        state = watched.state
    assert warned == [0, 1, 0, 0, 0, 0, 1]
    assert state.warned == ("repetition",)


def test_a_warning_names_the_figure_its_value_and_the_setting():
    thresholds = OFF.model_copy(update={"length_correlation": 0.8})
    falling = [group((total(3.0), 1), (total(2.0), 2), (total(1.0), 3))]
    (warning,) = watch(falling, thresholds, MonitorState()).warnings
    assert warning.startswith("monitor/length_correlation is -1, beyond rewards.monitors.length_correlation=0.8: ")


def test_without_a_threshold_nothing_is_warned_of():
    assert watch([figures(repetition=1.0, judge_spread=2.0), units(90, 1)], OFF, MonitorState()).warnings == ()


def scored(rewards: RewardsSection) -> ScoredRollout:
    sample = Sample("clip", "a.mp4", "", "", "A woman walks. A dog barks.")

    async def one() -> ScoredRollout:
        suite = make_suite(rewards)
        try:
            return (await suite.score_group(sample, ["A woman walks."]))[0]
        finally:
            await suite.close()

    return asyncio.run(one())


def held_out(server: JudgeServer, share: float) -> RewardsSection:
    judge = JudgeSection(kind="openai", model=MODEL, base_urls=(server.url,), max_tries=1)
    return RewardsSection(
        terms=(RewardTerm(name="cser"),),
        cache=CacheSection(enabled=False),
        monitors=OFF.model_copy(update={"held_out_judge": judge, "held_out_share": share}),
    )


def test_the_held_out_judge_is_asked_for_its_share_and_changes_no_reward():
    plain = scored(RewardsSection(terms=(RewardTerm(name="cser"),)))
    assert isinstance(plain, RewardBreakdown)
    with JudgeServer() as server:
        outcome = scored(held_out(server, 1.0))
        assert isinstance(outcome, RewardBreakdown)
        assert outcome.total == plain.total
        assert outcome.parts["held_out"].judgements[0].judge == MODEL
        assert math.isfinite(outcome.metrics["held_out_cser"])
        asked = server.seen.num_requests
        assert asked > 0
        assert scored(held_out(server, 1e-9)) == plain
        assert server.seen.num_requests == asked


def test_a_held_out_judge_that_fails_costs_no_reward():
    with JudgeServer(Behaviour(fail=1.0)) as server:
        outcome = scored(held_out(server, 1.0))
    assert isinstance(outcome, RewardBreakdown)
    assert "held_out_cser" not in outcome.metrics
