"""A step's captions and their scores."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from owlcap.config import RewardsSection, RolloutSection
from owlcap.evaluation.scoring import CaptionScorer, GroupScorerPool, GroupScoring
from owlcap.types import RolloutFailure, RolloutGroup, Sample, SamplingSettings, ScoredGroup
from rl.state import sampling_seed
from rollout.settings import GenerationRequest

SCORING_GRACE_S = 60.0  # beyond what the reward actors need when every group runs into its own deadline


class GroupSource(Protocol):
    """What captions clips; `rollout.pool.RolloutPool` is one."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        """One result a request, as they finish."""
        ...


@dataclass(frozen=True, slots=True)
class Collected:
    """Results in the order of the requests, whatever order they came in."""

    results: tuple[ScoredGroup | RolloutFailure, ...]
    generate_s: float  # from the first request until the last group was generated
    judge_s: float  # after that, until the last group was scored


def make_requests(
    samples: Sequence[Sample], rollout: RolloutSection, run_seed: int, step: int, first_index: int = 0
) -> list[GenerationRequest]:
    """One request a prompt, with a seed that follows from run, step and place.

    Args:
        first_index: place of the first sample among the step's prompts.
    """
    sampling = SamplingSettings(
        num_completions=rollout.group_size,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        max_new_tokens=rollout.max_new_tokens,
    )
    return [
        GenerationRequest(sample, replace(sampling, seed=sampling_seed(run_seed, step, index)))
        for index, sample in enumerate(samples, first_index)
    ]


class Collection:
    """Captions of some prompts on their way: `generate` in one thread, then `finish` in the same or another.

    Args:
        requests: of samples with distinct ids.
        deadline_s: for scores that are still out when the last group is in.
        judge_at_once: hand each group to the judges as it is generated; else when all are.
    """

    def __init__(
        self,
        scorer: GroupScorerPool | CaptionScorer,
        requests: Sequence[GenerationRequest],
        deadline_s: float,
        *,
        judge_at_once: bool = True,
    ) -> None:
        self._requests, self._judge_at_once = requests, judge_at_once
        self._scoring = GroupScoring(scorer, deadline_s)
        self._scoring.open()
        self._groups: dict[str, RolloutGroup] = {}
        self._failures: dict[str, RolloutFailure] = {}
        self._generate_s = 0.0

    def generate(self, pool: GroupSource) -> None:
        """Sample every request.

        Raises:
            RolloutError: the engines cannot go on.
        """
        started = time.perf_counter()
        for result in pool.generate(self._requests):
            if isinstance(result, RolloutFailure):
                self._failures[result.sample.id] = result
                continue
            self._groups[result.sample.id] = result
            if self._judge_at_once:
                self._submit(result)
        self._generate_s = time.perf_counter() - started

    def finish(self) -> Collected:
        """Wait for the scores, after `generate`; this or `abandon` ends a collection.

        Raises:
            RewardError: a reward broke its contract, or the deadline passed.
        """
        started = time.perf_counter()
        results: dict[str, ScoredGroup | RolloutFailure] = dict(self._failures)
        try:
            if not self._judge_at_once:
                for group in self._groups.values():
                    self._submit(group)
            for scored in self._scoring.finish():
                name = scored.group.sample.id
                results[name] = replace(scored, group=self._groups[name])
        except BaseException:
            self.abandon()
            raise
        self._scoring.close(cancel=False)
        ordered = tuple(results[request.sample.id] for request in self._requests)
        return Collected(ordered, self._generate_s, time.perf_counter() - started)

    def abandon(self) -> None:
        """Stop scoring; nobody wants the captions any more. Not while `generate` runs."""
        self._scoring.close(cancel=True)

    def _submit(self, group: RolloutGroup) -> None:
        """Rewards read text: tokens and pixels stay where they are."""
        texts = tuple(replace(one, token_ids=(), logprobs=()) for one in group.completions)
        self._scoring.submit(replace(group, prompt=None, completions=texts))


def scoring_deadline(rewards: RewardsSection, rollout: RolloutSection) -> float:
    """Seconds that a whole step's groups may take to score, if each comes near its own deadline."""
    captions = rollout.prompts_per_step * rollout.group_size
    turns = math.ceil(captions / rewards.judge.concurrency)
    return turns * rewards.rollout_deadline_s + SCORING_GRACE_S
