"""Several rewards as one: weights, the total, and what happens when one of them fails.

A JudgeError or a missed deadline leaves rollouts unscored. Anything else a reward does wrong (another exception,
a wrong length, a wrong type, NaN) is a RewardError that names the function: a fault in code is never turned into
a number.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, cast

import rewards.catalogue  # noqa: F401  (registers the project's rewards)
from owlcap.config import RewardsSection, RewardTerm
from owlcap.errors import ConfigError, JudgeError, RewardError, one_line
from owlcap.registry import resolve
from owlcap.types import RewardBreakdown, Sample, Score, ScoredRollout, Unscored
from rewards.base import Closeable, Reward
from rewards.chat import Usage
from rewards.functions import FunctionReward, is_reward_function
from rewards.held_out import HeldOut
from rewards.judges import Judges
from rewards.limits import RateLimiter
from rewards.room import Room
from rewards.text import repetition, words

# Captions being scored for each call that the judge may have in flight: with one, calls lie idle while the slowest
# caption of each group is waited for; with many, captions wait for calls within their own deadlines.
CAPTIONS_A_CALL = 4
CANCEL_GRACE_S = 1.0  # what a reward past its deadline gets to stop

Outcome = Score | Unscored


class RewardSuite:
    """Rewards with their weights. Made by `make_suite`; used in one event loop at a time.

    Args:
        terms: rewards and weights.
        deadline_s: for scoring a rollout, from when there is room for its group. A reward with `per_caption` is called
            for each caption alone, so that a late one takes no other with it.
        max_captions: being scored at the same time; further groups wait.
        judges: of the rewards; closed with them.
    """

    def __init__(
        self,
        terms: Sequence[tuple[Reward, float]],
        deadline_s: float,
        max_captions: int,
        judges: Judges | None = None,
    ) -> None:
        self._terms = tuple(terms)
        self._judges = judges
        self._deadline_s = deadline_s
        self._room = Room(max_captions)

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> tuple[ScoredRollout, ...]:
        """Score all captions of one clip: all rewards at the same time, within each rollout's deadline.

        A rollout that any reward of non-zero weight leaves unscored is unscored as a whole.

        Raises:
            RewardError: a reward broke its contract.
        """
        if not captions:
            return ()
        await self._room.wait()
        with self._room.taken(len(captions)):
            columns = await self._outcomes(sample, tuple(captions))
        return tuple(
            self._breakdown(caption, [column[row] for column in columns]) for row, caption in enumerate(captions)
        )

    async def close(self) -> None:
        """Release what the rewards hold."""
        for reward, _ in self._terms:
            if isinstance(reward, Closeable):
                await reward.close()
        if self._judges is not None:
            await self._judges.close()

    @property
    def usage(self) -> Usage:
        """What the judges' models were asked so far, and what it cost."""
        return self._judges.usage if self._judges is not None else Usage()

    async def check(self) -> None:
        """Ask the judges' servers whether they are there.

        Raises:
            JudgeError: one is not.
        """
        if self._judges is not None:
            await self._judges.check()

    async def _outcomes(self, sample: Sample, captions: tuple[str, ...]) -> list[tuple[Outcome, ...]]:
        """One column of outcomes a reward."""
        late = f"no answer within {self._deadline_s:g} s (rewards.rollout_deadline_s)"
        calls = [
            [(part, asyncio.ensure_future(_run(reward, sample, part))) for part in _parts(reward, captions)]
            for reward, _ in self._terms
        ]
        tasks = [task for column in calls for _, task in column]
        try:
            await asyncio.wait(tasks, timeout=self._deadline_s, return_when=asyncio.FIRST_EXCEPTION)
            columns: list[tuple[Outcome, ...]] = []
            for (reward, _), column in zip(self._terms, calls, strict=True):
                outcomes = [
                    task.result() if task.done() else (Unscored(reward.name, late),) * len(part)
                    for part, task in column
                ]
                columns.append(tuple(outcome for part in outcomes for outcome in part))
            return columns
        finally:
            await _cancel(tasks)

    def _breakdown(self, caption: str, outcomes: Sequence[Outcome]) -> ScoredRollout:
        total, parts = 0.0, {}
        metrics = {"length_words": float(len(words(caption))), "repetition": repetition(caption)}
        for (reward, weight), outcome in zip(self._terms, outcomes, strict=True):
            if isinstance(outcome, Unscored):
                if weight != 0:
                    return outcome
                continue
            twice = metrics.keys() & outcome.metrics.keys()
            if twice:
                raise RewardError(
                    f'the metric "{min(twice)}" of the reward {reward.name} is already taken', cure="rename the metric"
                )
            total += weight * outcome.value
            parts[reward.name] = outcome
            metrics.update(outcome.metrics)
        return RewardBreakdown(total, parts=parts, metrics=metrics)


def make_suite(rewards: RewardsSection, limiter: RateLimiter | None = None) -> RewardSuite:
    """Build the rewards of a run by their registered names.

    Args:
        limiter: of the judges' rates, where several processes share them.

    Raises:
        ConfigError: no terms, an unknown or repeated name, a bad weight or option.
    """
    if not rewards.terms:
        raise ConfigError("no rewards are given", where="rewards.terms", cure="add at least one, e.g. {name: cser}")
    judges = Judges(rewards, limiter)
    terms = [(_make_reward(term, judges), term.weight) for term in rewards.terms]
    if rewards.monitors.held_out_judge is not None:
        terms.append((HeldOut(judges), 0.0))
    taken: set[str] = set()
    for reward, _ in terms:
        if reward.name in taken:
            raise ConfigError(
                f'the reward "{reward.name}" is given twice', where="rewards.terms", cure="keep one, with its weight"
            )
        taken.add(reward.name)
    return RewardSuite(
        terms, rewards.rollout_deadline_s, max_captions=CAPTIONS_A_CALL * rewards.judge.concurrency, judges=judges
    )


def _make_reward(term: RewardTerm, judges: Judges) -> Reward:
    where = f'rewards.terms, name "{term.name}"'
    factory = resolve("reward", term.name)
    if is_reward_function(factory):
        return FunctionReward(term.name.rpartition(":")[2], cast(Callable[..., Any], factory), term.options)
    if not callable(factory):
        raise ConfigError(
            f"{term.name} is not callable", where=where, allowed="a class or function that makes a Reward"
        )
    try:
        reward = factory(judges, term.options)
    except TypeError as error:  # most often a signature that does not fit
        raise ConfigError(
            f"{term.name} cannot be built: {error}",
            where=where,
            allowed="a class that takes (judges, options), or a function of caption or captions",
        ) from error
    if not isinstance(reward, Reward):
        raise ConfigError(
            f"{term.name} made a {type(reward).__name__}",
            where=where,
            allowed="an object with `name` and `async score_group(sample, captions)`",
        )
    return reward


def _parts(reward: Reward, captions: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The captions of each call."""
    return [(caption,) for caption in captions] if getattr(reward, "per_caption", False) else [captions]


async def _run(reward: Reward, sample: Sample, captions: tuple[str, ...]) -> tuple[Outcome, ...]:
    """Call one reward and check what it returns: the boundary between this system and anyone's reward code."""
    try:
        outcomes = await reward.score_group(sample, captions)
    except JudgeError as error:
        return (Unscored(reward.name, one_line(error)),) * len(captions)
    except (Exception, SystemExit) as error:
        raise RewardError(
            f"the reward {reward.name} raised {type(error).__name__}: {error}", where=_place(reward, sample)
        ) from error
    if not isinstance(outcomes, Sequence) or len(outcomes) != len(captions):
        returned = f"{len(outcomes)} scores" if isinstance(outcomes, Sequence) else type(outcomes).__name__
        raise RewardError(
            f"the reward {reward.name} returned {returned} for {len(captions)} captions",
            where=_place(reward, sample),
            allowed="a sequence of one Score or Unscored a caption, in order",
        )
    return tuple(_checked(outcome, reward, sample) for outcome in outcomes)


def _checked(outcome: object, reward: Reward, sample: Sample) -> Outcome:
    """The outcome with its numbers as plain floats."""
    if isinstance(outcome, Unscored):
        return outcome
    if not isinstance(outcome, Score):
        raise RewardError(
            f"the reward {reward.name} returned a {type(outcome).__name__}",
            where=_place(reward, sample),
            allowed="Score or Unscored; of a function also a number, or None for unscored",
        )
    named: Mapping[str, object] = {"value": outcome.value, **outcome.metrics}
    for name, number in named.items():
        if not isinstance(number, Real) or isinstance(number, bool) or not math.isfinite(number):
            raise RewardError(
                f"the {name} of the reward {reward.name} is {number!r}",
                where=_place(reward, sample),
                allowed="a finite number; return Unscored with a reason where there is none",
            )
    metrics = {name: float(number) for name, number in outcome.metrics.items()}
    return replace(outcome, value=float(outcome.value), metrics=metrics)


async def _cancel(tasks: Sequence[asyncio.Future[tuple[Outcome, ...]]]) -> None:
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending, timeout=CANCEL_GRACE_S)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # one failure is told; asyncio would print the others as never looked at


def _place(reward: Reward, sample: Sample) -> str:
    if isinstance(reward, FunctionReward):
        return f"{reward.place}, sample {sample.id}"
    kind = type(reward)
    return f"{kind.__module__}.{kind.__qualname__}.score_group, sample {sample.id}"
