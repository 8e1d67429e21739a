"""Plain functions as rewards: how they are called, what they may return, and how their faults are told."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from owlcap import registry
from owlcap.config import RewardsSection, RewardTerm
from owlcap.errors import ConfigError, JudgeError, RewardError
from owlcap.types import RewardBreakdown, Sample, Score, ScoredRollout, Unscored
from rewards import reward
from rewards.functions import FunctionReward, is_reward_function
from rewards.suite import RewardSuite, make_suite

SAMPLE = Sample(id="clip-7", video="a.mp4", prompt="", caption="", reference="A man waves.")


def scored(function: Callable[..., Any], *captions: str, **options: Any) -> tuple[ScoredRollout, ...]:
    suite = RewardSuite([(FunctionReward("mine", function, options), 1.0)], 10.0, max_captions=8)
    return asyncio.run(suite.score_group(SAMPLE, captions or ("one", "one two")))


def totals(outcomes: Sequence[ScoredRollout]) -> list[float | None]:
    return [outcome.total if isinstance(outcome, RewardBreakdown) else None for outcome in outcomes]


def per_caption(caption, sample):
    return len(caption.split()) + len(sample.id)


async def per_caption_async(caption, sample):
    await asyncio.sleep(0)
    return per_caption(caption, sample)


def per_group(captions, sample):
    return [per_caption(caption, sample) for caption in captions]


async def per_group_async(captions, sample):
    return per_group(captions, sample)


def without_sample(caption):
    return len(caption.split()) + 6


def any_order(sample, *, caption):
    return per_caption(caption, sample)


class Callee:
    def __call__(self, caption, sample):
        return per_caption(caption, sample)


FORMS = [per_caption, per_caption_async, per_group, per_group_async, without_sample, any_order, Callee()]


@pytest.mark.parametrize("function", FORMS)
def test_every_form_of_function_is_called_with_what_it_names(function: Callable[..., Any]):
    assert is_reward_function(function)
    assert totals(scored(function)) == [7.0, 8.0]


@pytest.mark.parametrize("other", [int, Callee, min, lambda judges, options: None, "text", FunctionReward])
def test_classes_and_factories_are_no_reward_functions(other: object):
    assert not is_reward_function(other)


def test_options_are_passed_by_name():
    def brief(caption, sample, per_word, *, start=0.0):
        return start - per_word * len(caption.split())

    assert totals(scored(brief, per_word=0.5)) == [-0.5, -1.0]
    assert totals(scored(brief, per_word=0.5, start=2.0)) == [1.5, 1.0]


def test_a_function_may_take_any_option():
    assert totals(scored(lambda caption, **options: options["bonus"], bonus=3)) == [3.0, 3.0]


def test_numpy_numbers_scores_unscored_and_none_are_outcomes():
    def mixed(captions):
        return [np.float32(0.5), Score(2.0, {"words": 3.0}), Unscored("mine", "too dark"), None]

    half, whole, dark, nothing = scored(mixed, "a", "b", "c", "d")
    assert isinstance(half, RewardBreakdown)
    assert isinstance(whole, RewardBreakdown)
    assert (half.total, whole.total, whole.metrics["words"]) == (0.5, 2.0, 3.0)
    assert dark == Unscored("mine", "too dark")
    assert nothing == Unscored("mine", "the function returned None")


def test_a_judge_error_leaves_only_its_caption_unscored():
    def asks(caption):
        if caption == "bad":
            raise JudgeError("my server is down")
        return 1.0

    assert scored(asks, "good", "bad")[1] == Unscored("mine", "my server is down")
    assert totals(scored(asks, "good", "bad")) == [1.0, None]


def raises(caption):
    return 1 / 0


async def raises_async(captions):
    return 1 / 0


def exhausts(caption):
    return next(iter(()))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises, "raised ZeroDivisionError: division by zero"),
        (raises_async, "raised ZeroDivisionError: division by zero"),
        (exhausts, "raised RuntimeError: coroutine raised StopIteration"),
        (lambda caption: float("nan"), "the value of the reward mine is nan"),
        (lambda caption: float("-inf"), "the value of the reward mine is -inf"),
        (lambda caption: True, "the value of the reward mine is True"),
        (lambda caption: "0.5", "returned a str"),
        (lambda caption: [0.5], "returned a list"),
        (lambda caption: Score(float("nan")), "the value of the reward mine is nan"),
        (lambda captions: [0.5], "returned 1 scores for 2 captions"),
        (lambda captions: [0.5] * 3, "returned 3 scores for 2 captions"),
        (lambda captions: 0.5, "returned float for 2 captions"),
        (lambda captions: None, "returned NoneType for 2 captions"),
        (lambda captions: {"a": 1, "b": 2}, "returned dict for 2 captions"),
        (lambda captions: (value for value in (1, 2)), "returned generator for 2 captions"),
        (lambda captions: [0.5, "0.5"], "returned a str"),
    ],
)
def test_a_fault_names_function_file_line_and_sample(function: Callable[..., Any], message: str):
    with pytest.raises(RewardError) as caught:
        scored(function)
    assert message in caught.value.what
    line = function.__code__.co_firstlineno
    assert caught.value.where == f"{function.__qualname__} ({__file__}:{line}), sample clip-7"


def test_the_faults_traceback_is_kept():
    with pytest.raises(RewardError) as caught:
        scored(raises)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("function", "options", "message", "allowed"),
    [
        (lambda caption, sample, bonus=1: 0, {"bonsu": 2}, 'unknown option "bonsu" of the reward mine', "bonus"),
        (lambda caption, sample: 0, {"bonus": 2}, 'unknown option "bonus"', "no options"),
        (lambda caption, sample: 0, {"sample": 2}, 'unknown option "sample"', "no options"),
        (lambda caption, bonus: 0, {}, 'no value for the option "bonus"', "bonus"),
        (lambda caption, captions: 0, {}, "takes caption and captions", "once a group"),
        (lambda caption, /: 0, {}, "takes caption by position only", ""),
    ],
)
def test_a_signature_or_option_that_does_not_fit_is_refused_before_any_caption(
    function: Callable[..., Any], options: dict[str, Any], message: str, allowed: str
):
    with pytest.raises(ConfigError) as caught:
        FunctionReward("mine", function, options)
    assert message in caught.value.what
    assert allowed in (caught.value.allowed or "")
    assert f"{__file__}:" in (caught.value.where or "")


def test_a_slow_function_blocks_nobody():
    """The slow one ends only when the other reward, in the same event loop, has been called."""
    called = threading.Event()

    def slow(caption):
        return float(called.wait(timeout=60))

    async def quick(captions):
        called.set()
        return [1.0] * len(captions)

    terms = [(FunctionReward("slow", slow, {}), 1.0), (FunctionReward("quick", quick, {}), 1.0)]
    outcomes = asyncio.run(RewardSuite(terms, 60.0, 8).score_group(SAMPLE, ["a", "b"]))
    assert totals(outcomes) == [2.0, 2.0]


def test_captions_of_a_group_are_scored_at_the_same_time():
    together = threading.Barrier(3)

    def meets(caption):
        return float(together.wait(timeout=60) >= 0)

    assert totals(scored(meets, "a", "b", "c")) == [1.0, 1.0, 1.0]


def test_an_answer_that_comes_too_late_is_dropped_in_silence(monkeypatch: pytest.MonkeyPatch):
    started, go_on = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    faults: list[object] = []
    monkeypatch.setattr(threading, "excepthook", faults.append)

    def late(caption):
        threads.append(threading.current_thread())
        started.set()
        return float(go_on.wait(timeout=60))

    async def cancelled() -> None:
        scoring = asyncio.ensure_future(FunctionReward("late", late, {}).score_group(SAMPLE, ["a"]))
        await asyncio.to_thread(started.wait, 60)
        scoring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scoring

    asyncio.run(cancelled())
    go_on.set()
    threads[0].join(timeout=60)
    assert not threads[0].is_alive()
    assert faults == []


def test_a_function_that_never_returns_is_unscored_and_does_not_keep_the_process_alive(tmp_path: Path):
    script = tmp_path / "hang.py"
    script.write_text(
        "import asyncio, threading\n"
        "from owlcap.types import Sample\n"
        "from rewards.functions import FunctionReward\n"
        "from rewards.suite import RewardSuite\n"
        "def hangs(caption):\n"
        "    threading.Event().wait()\n"
        "suite = RewardSuite([(FunctionReward('hangs', hangs, {}), 1.0)], 0.05, 8)\n"
        "print(asyncio.run(suite.score_group(Sample('a', '', '', '', ''), ['a']))[0])\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert "no answer within 0.05 s" in ended.stdout


# The three ways to name one


@pytest.fixture
def own_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names registered by a test are gone after it."""
    known = {kind: dict(plugins) for kind, plugins in registry._registered.items()}
    monkeypatch.setattr(registry, "_registered", known)


def by_name(name: str, **options: Any) -> ScoredRollout:
    suite = make_suite(RewardsSection(terms=(RewardTerm(name=name, options=options),)))
    return asyncio.run(suite.score_group(SAMPLE, ["one two"]))[0]


@pytest.mark.usefixtures("own_rewards")
def test_the_decorator_names_a_function_and_leaves_it_as_it_is():
    @reward("half")
    def halved(caption, sample, by=2):
        return 1 / by

    assert halved("a", SAMPLE) == 0.5
    outcome = by_name("half", by=4)
    assert isinstance(outcome, RewardBreakdown)
    assert (outcome.total, set(outcome.parts)) == (0.25, {"half"})


def test_a_function_of_a_file(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(
        "\n\nasync def brief(caption, sample, per_word=0.5):\n    return -per_word * len(caption.split())\n"
    )
    outcome = by_name(f"{path}:brief")
    assert isinstance(outcome, RewardBreakdown)
    assert (outcome.total, set(outcome.parts)) == (-1.0, {"brief"})


def test_a_fault_in_a_file_names_its_line(tmp_path: Path):
    path = tmp_path / "faulty.py"
    path.write_text("\n\ndef brief(caption):\n    return {}['x']\n")
    with pytest.raises(RewardError) as caught:
        by_name(f"{path}:brief")
    assert caught.value.where == f"brief ({path}:3), sample clip-7"


def test_a_function_of_an_installed_package(monkeypatch: pytest.MonkeyPatch):
    from importlib.metadata import EntryPoint

    point = EntryPoint("theirs", f"{__name__}:per_caption", "owlcap.rewards")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    outcome = by_name("theirs")
    assert isinstance(outcome, RewardBreakdown)
    assert outcome.total == 8.0
