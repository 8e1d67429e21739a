"""One step's data, without any actor: from scored groups to what the learner takes, the figures and the log rows.

A line of rollouts/step_*.jsonl is one prompt:

    {"step": 3, "id": "clip-7", "video": ..., "start_s": null, "end_s": null, "overlays": [], "reference": ...,
     "policy_version": 2, "failure": null, "completions": [
        {"text": "A man waves.", "num_tokens": 4, "finish_reason": "stop", "reward": 1.7, "advantage": 0.4,
         "metrics": {"cser": 1.5, ...}, "unscored": null,
         "parts": {"cser": {"value": 1.5, "judgements": [
             {"predicted_units": [{"text": "a man waves", "tag": "motion", "label": "supported"}],
              "reference_units": [...], "judge": "Qwen/Qwen3-32B", "reply_ids": ["chatcmpl-1", ...]}]},
             "length": {"value": 0.2, "judgements": []}}}]}

`parts` has an entry for each reward that gave a value; `judgements` one for each judge that it asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from owlcap.config import AlgorithmSection
from owlcap.types import (
    Completion,
    Judgement,
    LearnerGroup,
    RewardBreakdown,
    RolloutFailure,
    ScoredGroup,
    ScoredRollout,
)
from rl.advantages import batch_advantages, is_informative


@dataclass(frozen=True, slots=True)
class PartRow:
    """What one reward gave a caption before its weight, and the evidence it rests on."""

    value: float
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class CompletionRow:
    """One caption as it is logged. `reward` and `advantage` are null where it is unscored."""

    text: str
    num_tokens: int
    finish_reason: str
    reward: float | None
    advantage: float | None
    metrics: Mapping[str, float]
    unscored: str | None  # why
    parts: Mapping[str, PartRow]


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One prompt's line in rollouts/step_*.jsonl; `failure` says why it has no completions."""

    step: int
    id: str
    video: str
    reference: str
    policy_version: int | None
    completions: tuple[CompletionRow, ...]
    failure: str | None = None
    start_s: float | None = None  # the part of the video that is meant
    end_s: float | None = None
    overlays: tuple[str, ...] = ()  # the sample's picture files; shown to the policy where motion.enabled is set


@dataclass(frozen=True, slots=True)
class StepBatch:
    """What a step's results come to. `groups` may be empty: then there is nothing to learn from."""

    groups: tuple[LearnerGroup, ...]
    num_prompt_tokens: tuple[int, ...]
    values: Mapping[str, float]
    rows: tuple[GroupRow, ...]
    num_failed: int
    unscored_share: float  # of the rollouts


def assemble(
    results: Sequence[ScoredGroup | RolloutFailure],
    cfg: AlgorithmSection,
    step: int,
    *,
    policy_version: int = 0,
    max_staleness: int | None = None,
    max_groups: int | None = None,
) -> StepBatch:
    """Advantages of a step's groups, and everything that is said about them.

    Args:
        results: one a prompt, in the order of the prompts.
        policy_version: that the groups will train.
        max_staleness: groups sampled by a policy more versions older teach nothing; None: all do.
        max_groups: that are learned from, for dynamic sampling: the first ones whose rewards differ. None: all.
    """
    scored = [result for result in results if isinstance(result, ScoredGroup)]
    ages = [policy_version - item.group.policy_version for item in scored]
    fresh = [max_staleness is None or age <= max_staleness for age in ages]
    wanted = fresh if max_groups is None else _first_informative(scored, fresh, max_groups)
    totals = [item.totals if ok else (None,) * len(item.totals) for item, ok in zip(scored, wanted, strict=True)]
    lengths = [[len(one.token_ids) for one in item.group.completions] for item in scored]
    advantages = batch_advantages(totals, lengths, cfg)
    learned = [
        (_learner_group(item, values), item.group.num_prompt_tokens)
        for item, values in zip(scored, advantages.values, strict=True)
        if any(value is not None for value in values)
        and not (cfg.drop_zero_variance and not is_informative(item.totals))
    ]
    by_group = iter(advantages.values)
    rows = tuple(
        _failed_row(result, step) if isinstance(result, RolloutFailure) else _group_row(result, next(by_group), step)
        for result in results
    )
    num_failed = len(results) - len(scored)
    values = (
        _values(scored)
        | _staleness(ages, lengths)
        | {
            "rollout/failed": num_failed,
            "rollout/stale_groups": fresh.count(False),
            "advantage/groups_too_few_scored": advantages.num_too_few - wanted.count(False),
            "advantage/groups_without_variance": advantages.num_no_variance,
        }
    )
    return StepBatch(
        groups=tuple(group for group, _ in learned),
        num_prompt_tokens=tuple(tokens for _, tokens in learned),
        values=values,
        rows=rows,
        num_failed=num_failed,
        unscored_share=values.get("reward/unscored_share", 0.0),
    )


def _first_informative(scored: Sequence[ScoredGroup], fresh: Sequence[bool], limit: int) -> list[bool]:
    """Which groups dynamic sampling keeps."""
    kept: list[bool] = []
    for item, ok in zip(scored, fresh, strict=True):
        kept.append(ok and is_informative(item.totals) and sum(kept) < limit)
    return kept


def write_rows(rows: Iterable[GroupRow], file: Path) -> None:
    """Write a step's rows as JSON lines."""
    text = "".join(json.dumps(row, default=_fields, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as json.dumps takes it, without the deep copies of `asdict`."""
    return {one.name: getattr(value, one.name) for one in fields(value)}


def _learner_group(item: ScoredGroup, advantages: Sequence[float | None]) -> LearnerGroup:
    """The scored completions of a group; unscored ones get no gradient, so the learner never sees them."""
    triples = zip(item.group.completions, advantages, item.totals, strict=True)
    kept = [(one, a, reward) for one, a, reward in triples if a is not None and reward is not None]
    return LearnerGroup(
        prompt=item.group.prompt,
        completions=tuple(one.token_ids for one, _, _ in kept),
        rollout_logprobs=tuple(one.logprobs for one, _, _ in kept),
        advantages=tuple(a for _, a, _ in kept),
        rewards=tuple(reward for _, _, reward in kept),
    )


def _values(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """Means over a step's rollouts; a metric's mean is over the rollouts that have it."""
    completions = [one for item in scored for one in item.group.completions]
    scores = [score for item in scored for score in item.scores]
    breakdowns = [score for score in scores if isinstance(score, RewardBreakdown)]
    if not completions:
        return {}
    figures: dict[str, list[float]] = {}
    for score in breakdowns:
        parts = {f"reward/part_{name}": part.value for name, part in score.parts.items()}
        for name, value in (parts | {f"reward/{name}": value for name, value in score.metrics.items()}).items():
            figures.setdefault(name, []).append(value)
    values = {name: mean(figures[name]) for name in sorted(figures)}
    if breakdowns:
        values["reward/mean"] = mean([score.total for score in breakdowns])
    spreads = [_std(totals) for item in scored if len(totals := [t for t in item.totals if t is not None]) > 1]
    if spreads:
        values["reward/std_in_group"] = mean(spreads)
    return values | {
        "reward/unscored_share": 1 - len(breakdowns) / len(scores),
        "rollout/tokens": mean([len(one.token_ids) for one in completions]),
        "rollout/truncated_share": mean([one.finish_reason == "length" for one in completions]),
        "rollout/prompt_tokens": mean([item.group.num_prompt_tokens for item in scored]),
        "rollout/groups": len(scored),
        "seconds/decode_a_clip": mean([item.group.decode_s for item in scored]),
        "seconds/score_a_group": mean([item.score_s for item in scored]),
    }


def _staleness(ages: Sequence[int], lengths: Sequence[Sequence[int]]) -> dict[str, float]:
    """How many updates the sampled tokens are behind the policy that they train."""
    counts = [sum(group) for group in lengths]
    if not sum(counts):
        return {}
    of_tokens = math.fsum(age * count for age, count in zip(ages, counts, strict=True)) / sum(counts)
    return {"staleness/mean": of_tokens, "staleness/max": max(ages)}


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value, summed exactly."""
    return math.fsum(values) / len(values)


def _std(values: Sequence[float]) -> float:
    """Unbiased standard deviation of at least two values."""
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def _group_row(item: ScoredGroup, advantages: Sequence[float | None], step: int) -> GroupRow:
    group = item.group
    triples = zip(group.completions, item.scores, advantages, strict=True)
    return GroupRow(
        step=step,
        id=group.sample.id,
        video=group.sample.video,
        reference=group.sample.reference,
        policy_version=group.policy_version,
        completions=tuple(_completion_row(one, score, advantage) for one, score, advantage in triples),
        start_s=group.sample.start_s,
        end_s=group.sample.end_s,
        overlays=group.sample.overlays,
    )


def _completion_row(one: Completion, score: ScoredRollout, advantage: float | None) -> CompletionRow:
    is_scored = isinstance(score, RewardBreakdown)
    return CompletionRow(
        text=one.text,
        num_tokens=len(one.token_ids),
        finish_reason=one.finish_reason,
        reward=score.total if is_scored else None,
        advantage=advantage,
        metrics=dict(score.metrics) if is_scored else {},
        unscored=None if is_scored else f"{score.reward}: {score.reason}",
        parts={name: PartRow(part.value, part.judgements) for name, part in score.parts.items()} if is_scored else {},
    )


def _failed_row(failure: RolloutFailure, step: int) -> GroupRow:
    sample = failure.sample
    return GroupRow(
        step,
        sample.id,
        sample.video,
        sample.reference,
        None,
        (),
        failure=f"{failure.error}: {failure.reason}",
        start_s=sample.start_s,
        end_s=sample.end_s,
        overlays=sample.overlays,
    )
