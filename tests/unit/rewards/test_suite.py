"""Weights, totals and failures of several rewards together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest

from owlcap import registry
from owlcap.config import RewardsSection, RewardTerm
from owlcap.errors import ConfigError, JudgeError, RewardError
from owlcap.registry import register
from owlcap.types import RewardBreakdown, Sample, Score, ScoredRollout, Unscored
from rewards.judges import Judges
from rewards.suite import RewardSuite, make_suite

SAMPLE = Sample(id="clip-7", video="a.mp4", prompt="", caption="", reference="Someone in a red shirt jumps.")


class Returns:
    """A reward that returns what it is told to."""

    def __init__(self, result: Any, name: str = "mine") -> None:
        self.name = name
        self._result = result

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Any:
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


class Hangs:
    """A reward that never answers and notes that it was told to stop."""

    name = "slow"
    cancelled = False

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[Score]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return []


def score(
    *terms: tuple[Any, float], captions: Sequence[str] = ("a caption",), deadline_s: float = 10.0
) -> tuple[ScoredRollout, ...]:
    return asyncio.run(RewardSuite(terms, deadline_s, max_captions=8).score_group(SAMPLE, captions))


def test_the_total_is_the_weighted_sum_and_every_part_stays_visible():
    first, second = (
        Returns([Score(0.5), Score(1.0)], "first"),
        Returns([Score(2), Score(cast(float, np.float32(4.0)))], "second"),
    )
    scores = score((first, 2.0), (second, -0.25), captions=("a", "b"))
    assert [s.total for s in scores if isinstance(s, RewardBreakdown)] == [0.5, 1.0]
    assert isinstance(scores[1], RewardBreakdown)
    assert {name: part.value for name, part in scores[1].parts.items()} == {"first": 1.0, "second": 4.0}
    assert type(scores[1].parts["second"].value) is float


def test_metrics_of_rewards_stand_beside_length_and_repetition():
    (scored,) = score((Returns([Score(1.0, {"recall": 0.5})]), 1.0), captions=("la la la la la la",))
    assert isinstance(scored, RewardBreakdown)
    assert scored.metrics == {"length_words": 6.0, "repetition": pytest.approx(2 / 3), "recall": 0.5}


def test_one_unscored_reward_leaves_only_its_rollout_unscored():
    partly = Returns([Score(1.0), Unscored("partly", "no answer")], "partly")
    whole = Returns([Score(1.0), Score(1.0)], "whole")
    scored, unscored = score((whole, 1.0), (partly, 1.0), captions=("a", "b"))
    assert isinstance(scored, RewardBreakdown)
    assert unscored == Unscored("partly", "no answer")


def test_an_unscored_reward_of_weight_zero_changes_nothing():
    (scored,) = score((Returns([Score(1.0)], "whole"), 1.0), (Returns([Unscored("watch", "down")], "watch"), 0.0))
    assert isinstance(scored, RewardBreakdown)
    assert scored.total == 1.0
    assert set(scored.parts) == {"whole"}


def test_a_judge_error_of_the_whole_group_is_unscored():
    (unscored,) = score((Returns(JudgeError("judge is down", cure="start it")), 1.0))
    assert unscored == Unscored("mine", "judge is down; cure: start it")


def test_a_late_caption_of_a_reward_for_each_caption_takes_no_other_with_it():
    class HangsAtOne:
        name = "mine"
        per_caption = True

        async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[Score]:
            if "late" in captions:
                await asyncio.Event().wait()
            return [Score(1.0) for _ in captions]

    first, late, last = score((HangsAtOne(), 1.0), captions=("a", "late", "b"), deadline_s=0.05)
    assert isinstance(first, RewardBreakdown)
    assert isinstance(last, RewardBreakdown)
    assert late == Unscored("mine", "no answer within 0.05 s (rewards.rollout_deadline_s)")


def test_a_missed_deadline_is_unscored_and_stops_the_reward():
    slow = Hangs()
    (unscored,) = score((slow, 1.0), (Returns([Score(1.0)]), 1.0), deadline_s=0.05)
    assert isinstance(unscored, Unscored)
    assert unscored.reward == "slow"
    assert "no answer within 0.05 s" in unscored.reason
    assert slow.cancelled


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (ZeroDivisionError("division by zero"), "raised ZeroDivisionError: division by zero"),
        (RewardError("own words"), "raised RewardError: own words"),
        (TimeoutError("slow disk"), "raised TimeoutError"),
        ([], "returned 0 scores for 1 captions"),
        ([Score(1.0), Score(1.0)], "returned 2 scores for 1 captions"),
        (None, "returned NoneType for 1 captions"),
        (1.0, "returned float for 1 captions"),
        ({0: Score(1.0)}, "returned dict for 1 captions"),
        ([1.0], "returned a float"),
        ([None], "returned a NoneType"),
        ([Score(float("nan"))], "the value of the reward mine is nan"),
        ([Score(float("inf"))], "the value of the reward mine is inf"),
        ([Score("1.0")], "the value of the reward mine is '1.0'"),  # type: ignore[arg-type]
        ([Score(None)], "the value of the reward mine is None"),  # type: ignore[arg-type]
        ([Score(True)], "the value of the reward mine is True"),
        ([Score(1.0, {"recall": float("nan")})], "the recall of the reward mine is nan"),
        ([Score(1.0, {"length_words": 3.0})], 'the metric "length_words" of the reward mine is already taken'),
    ],
)
def test_a_broken_contract_names_the_reward(result: object, message: str):
    with pytest.raises(RewardError) as caught:
        score((Returns(result), 1.0))
    assert message in str(caught.value)
    assert not isinstance(caught.value, JudgeError)


def test_the_error_of_a_broken_reward_names_function_and_sample_and_does_not_wait_for_others():
    slow = Hangs()
    with pytest.raises(RewardError) as caught:
        score((slow, 1.0), (Returns(ValueError("x")), 1.0), deadline_s=3600.0)
    assert "Returns.score_group, sample clip-7" in (caught.value.where or "")
    assert slow.cancelled


def test_no_captions_need_no_rewards():
    assert score((Returns(ValueError("never called")), 1.0), captions=()) == ()


class Counts:
    """A reward that lets others run and notes how many captions it was given at the same time."""

    name = "counts"
    now = most = 0

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[Score]:
        self.now += len(captions)
        self.most = max(self.most, self.now)
        for _ in range(10):
            await asyncio.sleep(0)
        self.now -= len(captions)
        return [Score(1.0) for _ in captions]


@pytest.mark.parametrize(("limit", "most"), [(1, 3), (3, 3), (4, 6), (100, 15)])
def test_groups_beyond_the_limit_wait_for_their_turn(limit: int, most: int):
    counts = Counts()
    suite = RewardSuite([(counts, 1.0)], 10.0, limit)

    async def five_groups() -> None:
        await asyncio.gather(*(suite.score_group(SAMPLE, ["a", "b", "c"]) for _ in range(5)))

    for _ in range(2):  # a second event loop starts with all the room
        asyncio.run(five_groups())
        assert counts.most == most


def test_a_failed_group_gives_its_room_back():
    suite = RewardSuite([(Returns([Score(1.0)]), 1.0)], 10.0, 1)

    async def failing_then_good() -> tuple[ScoredRollout, ...]:
        with pytest.raises(RewardError):
            await suite.score_group(SAMPLE, ["a", "b"])
        return await suite.score_group(SAMPLE, ["a"])

    (scored,) = asyncio.run(failing_then_good())
    assert isinstance(scored, RewardBreakdown)


# make_suite


@pytest.fixture
def own_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names registered by a test are gone after it."""
    known = {kind: dict(plugins) for kind, plugins in registry._registered.items()}
    monkeypatch.setattr(registry, "_registered", known)


def section(*names: str, **term: Any) -> RewardsSection:
    return RewardsSection(terms=tuple(RewardTerm(name=name, **term) for name in names))


def test_the_default_suite_is_cser_plus_length():
    captions = ["Someone in a red shirt jumps.", "", "Someone in a blue shirt jumps."]
    exact, empty, half = asyncio.run(make_suite(RewardsSection()).score_group(SAMPLE, captions))
    assert isinstance(exact, RewardBreakdown)
    assert isinstance(empty, RewardBreakdown)
    assert isinstance(half, RewardBreakdown)
    assert exact.total == pytest.approx(2.2)  # both ratios 1; 6 words are worth 0.2
    assert empty.total == pytest.approx(0.2)
    assert half.total == pytest.approx(1.2)  # 1 of 2 both ways
    assert exact.metrics == {
        "cser": 2.0,
        "correctness": 1.0,
        "completeness": 1.0,
        "f1": 1.0,
        "units": 2.0,
        "motion_correctness": 1.0,
        "motion_completeness": 1.0,
        "motion_f1": 1.0,
        "detail_correctness": 1.0,
        "detail_completeness": 1.0,
        "detail_f1": 1.0,
        "length_words": 6.0,
        "repetition": 0.0,
    }
    assert exact.parts["cser"].judgements


def test_an_unreadable_reference_leaves_the_group_unscored():
    sample = Sample(id="b", video="b.mp4", prompt="", caption="", reference="Ein Mann geht durch den Regen.")
    (unscored,) = asyncio.run(make_suite(RewardsSection()).score_group(sample, ["Someone jumps."]))
    assert isinstance(unscored, Unscored)
    assert "plain English only" in unscored.reason


def test_a_users_reward_from_a_file(tmp_path: Any):
    path = tmp_path / "brief.py"
    path.write_text(
        "from owlcap.types import Score\n"
        "class Brief:\n"
        "    name = 'brief'\n"
        "    def __init__(self, rewards, options):\n"
        "        self.per_word = options['per_word']\n"
        "    async def score_group(self, sample, captions):\n"
        "        return [Score(-self.per_word * len(c.split())) for c in captions]\n"
    )
    suite = make_suite(section(f"{path}:Brief", weight=10.0, options={"per_word": 0.5}))
    (scored,) = asyncio.run(suite.score_group(SAMPLE, ["two words"]))
    assert isinstance(scored, RewardBreakdown)
    assert scored.total == -10.0


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (RewardsSection(terms=()), "no rewards are given"),
        (section("cesr"), 'did you mean "cser"?'),
        (section("length", "length"), 'the reward "length" is given twice'),
        (section("length", options={"stpes": []}), 'unknown option "stpes"'),
    ],
)
def test_bad_settings_are_config_errors(rewards: RewardsSection, message: str):
    with pytest.raises(ConfigError) as caught:
        make_suite(rewards)
    assert message in str(caught.value)


@pytest.mark.usefixtures("own_rewards")
def test_what_is_no_reward_is_refused():
    @register("reward", "number")
    def number(judges: Judges, options: Mapping[str, Any]) -> float:
        return 1.0

    @register("reward", "old_style")
    def old_style(texts: Sequence[str]) -> list[float]:
        return []

    register("reward", "constant")(3.0)
    for name, message in (
        ("number", "number made a float"),
        ("old_style", "old_style cannot be built"),
        ("constant", "constant is not callable"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_suite(section(name))


def test_closing_the_suite_closes_what_can_be_closed():
    class Connected(Returns):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    connected = Connected([])
    asyncio.run(RewardSuite([(connected, 1.0), (Returns([], "plain"), 1.0)], 1.0, 8).close())
    assert connected.closed == 1
