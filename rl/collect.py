"""A step's captions and their scores: groups are scored while others are still being generated."""

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
    generate_s: float  # until the last group was generated
    judge_s: float  # after that, until the last group was scored


def make_requests(
    samples: Sequence[Sample], rollout: RolloutSection, run_seed: int, step: int
) -> list[GenerationRequest]:
    """One request a prompt, with a seed that follows from run, step and place."""
    sampling = SamplingSettings(
        num_completions=rollout.group_size,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        top_k=rollout.top_k,
        max_new_tokens=rollout.max_new_tokens,
    )
    return [
        GenerationRequest(sample, replace(sampling, seed=sampling_seed(run_seed, step, index)))
        for index, sample in enumerate(samples)
    ]


def collect(
    pool: GroupSource,
    scorer: GroupScorerPool | CaptionScorer,
    requests: Sequence[GenerationRequest],
    deadline_s: float,
) -> Collected:
    """Generate and score.

    Args:
        requests: of samples with distinct ids.
        deadline_s: for scores that are still out when the last group is in.

    Raises:
        RolloutError: the engines cannot go on.
        RewardError: a reward broke its contract, or the deadline passed.
    """
    started = time.perf_counter()
    groups: dict[str, RolloutGroup] = {}
    results: dict[str, ScoredGroup | RolloutFailure] = {}
    with GroupScoring(scorer, deadline_s) as scoring:
        for result in pool.generate(requests):
            if isinstance(result, RolloutFailure):
                results[result.sample.id] = result
            else:
                groups[result.sample.id] = result
                scoring.submit(replace(result, prompt=None))  # rewards read text; pixels stay where they are
        generated = time.perf_counter()
        for scored in scoring.finish():
            name = scored.group.sample.id
            results[name] = replace(scored, group=groups[name])
    done = time.perf_counter()
    ordered = tuple(results[request.sample.id] for request in requests)
    return Collected(ordered, generated - started, done - generated)


def scoring_deadline(rewards: RewardsSection, rollout: RolloutSection) -> float:
    """Seconds that a whole step's groups may take to score, if each comes near its own deadline."""
    captions = rollout.prompts_per_step * rollout.group_size
    turns = math.ceil(captions / rewards.judge.concurrency)
    return turns * rewards.rollout_deadline_s + SCORING_GRACE_S
