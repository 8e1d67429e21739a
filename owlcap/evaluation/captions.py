"""Score captions of held-out clips: given ones, or ones that a rollout pool generates now.

samples --> pool.generate --> group (as it finishes) --> reward suite or reward pool --> ClipRow
                 \\-> failure --> failed                          \\-> unscored
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from owlcap.errors import DataError
from owlcap.evaluation.report import CaptionReport, ClipProblem, ClipRow, make_report
from owlcap.evaluation.scoring import CaptionScorer, GroupScorerPool, GroupScoring
from owlcap.types import (
    RewardBreakdown,
    RolloutFailure,
    RolloutGroup,
    Sample,
    SamplingSettings,
    ScoredRollout,
    Unscored,
)
from rewards.suite import RewardSuite
from rollout.settings import GenerationRequest

__all__ = ["GroupSource", "evaluate_captions", "evaluate_with_pool", "score_captions"]

NO_CAPTION = "no caption was given for this clip"


def evaluate_captions(
    captions: Mapping[str, str | Sequence[str]],
    samples: Sequence[Sample],
    suite: CaptionScorer,
    *,
    name: str = "captions",
    concurrency: int = 64,
) -> CaptionReport:
    """`score_captions` for callers outside an event loop; the suite's connections are closed afterwards.

    Raises:
        JudgeError: a judge's server is not there, before anything is scored.
    """

    async def score_and_close() -> CaptionReport:
        try:
            if isinstance(suite, RewardSuite):
                await suite.check()
            return await score_captions(captions, samples, suite, name=name, concurrency=concurrency)
        finally:
            await suite.close()

    return asyncio.run(score_and_close())


async def score_captions(
    captions: Mapping[str, str | Sequence[str]],
    samples: Sequence[Sample],
    suite: CaptionScorer,
    *,
    name: str = "captions",
    concurrency: int = 64,
) -> CaptionReport:
    """Score captions (by sample id; one or several a clip) against the samples' references.

    A sample without a caption is counted as failed and named; a caption whose id no sample has is a
    DataError, since it says that captions and data do not belong together.

    Args:
        concurrency: clips being scored at a time (judges are called over a network).
    """
    check_unique_ids(samples)
    check_known_ids(captions, samples)
    given = {id_: (text,) if isinstance(text, str) else tuple(text) for id_, text in captions.items()}
    present = [sample for sample in samples if given.get(sample.id)]
    failed = [ClipProblem(sample.id, NO_CAPTION) for sample in samples if not given.get(sample.id)]
    scores = await _score_all(present, given, suite, concurrency)
    rows, unscored = split_scored((sample, given[sample.id], scores[sample.id]) for sample in present)
    return make_report(name, rows, failed=failed, unscored=unscored)


async def _score_all(
    samples: Sequence[Sample], captions: Mapping[str, tuple[str, ...]], suite: CaptionScorer, concurrency: int
) -> dict[str, tuple[ScoredRollout, ...]]:
    """Scores by sample id, at most `concurrency` clips in flight."""
    slots = asyncio.Semaphore(concurrency)

    async def score(sample: Sample) -> tuple[ScoredRollout, ...]:
        async with slots:
            return tuple(await suite.score_group(sample, captions[sample.id]))

    scores = await asyncio.gather(*(score(sample) for sample in samples))
    return {sample.id: score for sample, score in zip(samples, scores, strict=True)}


class GroupSource(Protocol):
    """What captions clips; `rollout.pool.RolloutPool` is one."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        """One result a request, as they finish."""
        ...


def evaluate_with_pool(
    pool: GroupSource,
    scorer: GroupScorerPool | CaptionScorer,
    samples: Sequence[Sample],
    sampling: SamplingSettings,
    *,
    name: str = "greedy",
    deadline_s: float = 900.0,
    progress: Callable[[int, int], None] | None = None,
) -> CaptionReport:
    """Caption the samples' clips and score each clip's captions while others are still being generated.

    With several completions a clip their figures are averaged within the clip. Requests of seeded sampling get
    seeds of their own, so that no two clips draw alike.

    Args:
        scorer: a reward pool, or a suite, which is closed afterwards.
        deadline_s: for the scores still out when the last clip is captioned.
        progress: called with (clips done, clips in all) as they finish.

    Raises:
        DataError: two samples share an id.
        RolloutError, RewardError: of the pool and of the scorer.
    """
    check_unique_ids(samples)
    failed: list[ClipProblem] = []
    with GroupScoring(scorer, deadline_s) as scoring:
        for number, result in enumerate(pool.generate(generation_requests(samples, sampling)), 1):
            if isinstance(result, RolloutFailure):
                failed.append(ClipProblem(result.sample.id, f"{result.error}: {result.reason}"))
            else:
                scoring.submit(result)
            if progress:
                progress(number, len(samples))
        groups = scoring.finish()
    rows, unscored = split_scored(
        (scored.group.sample, tuple(one.text for one in scored.group.completions), scored.scores) for scored in groups
    )
    return make_report(name, rows, failed=failed, unscored=unscored)


def generation_requests(samples: Sequence[Sample], sampling: SamplingSettings) -> list[GenerationRequest]:
    """One request a sample; completion i of a request draws from its seed + i."""
    if sampling.seed is None:
        return [GenerationRequest(sample, sampling, return_prompt=False) for sample in samples]
    return [
        GenerationRequest(
            sample, replace(sampling, seed=sampling.seed + number * sampling.num_completions), return_prompt=False
        )
        for number, sample in enumerate(samples)
    ]


ScoredClip = tuple[Sample, tuple[str, ...], tuple[ScoredRollout, ...]]


def split_scored(clips: Iterable[ScoredClip]) -> tuple[list[ClipRow], list[ClipProblem]]:
    """Rows of the clips with at least one score, and the clips with none."""
    rows, unscored = [], []
    for sample, captions, scores in clips:
        if len(scores) != len(captions):
            raise DataError(f"{len(scores)} scores came back for {len(captions)} captions", where=f"clip {sample.id}")
        row = _clip_row(sample, captions, scores)
        if row is None:
            reasons = sorted({f"{score.reward}: {score.reason}" for score in scores if isinstance(score, Unscored)})
            unscored.append(ClipProblem(sample.id, "; ".join(reasons)))
        else:
            rows.append(row)
    return rows, unscored


def _clip_row(sample: Sample, captions: tuple[str, ...], scores: Sequence[ScoredRollout]) -> ClipRow | None:
    """A clip's row from its scored captions only, or None where none is scored."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if not isinstance(score, RewardBreakdown):
            continue
        for metric, value in {"reward": score.total, **score.metrics}.items():
            if not math.isfinite(value):
                raise DataError(f"the figure {metric!r} is {value}", where=f"clip {sample.id}")
            values.setdefault(metric, []).append(value)
    if not values:
        return None
    metrics = {metric: math.fsum(figures) / len(figures) for metric, figures in values.items()}
    return ClipRow(sample.id, captions, sample.reference, metrics)


def check_unique_ids(samples: Sequence[Sample]) -> None:
    """Raise DataError if two samples share an id: their figures could not be told apart."""
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise DataError(f"two clips have the id {sample.id!r}", cure="give every row its own id")
        seen.add(sample.id)


def check_known_ids(ids: Iterable[str], samples: Sequence[Sample]) -> None:
    """Raise DataError for captions of clips that the data does not hold."""
    unknown = sorted(set(ids) - {sample.id for sample in samples})
    if unknown:
        raise DataError(
            f"{len(unknown)} captions belong to no clip of the data, the first is {unknown[0]!r}",
            cure="give the data file that these captions were made from",
        )
