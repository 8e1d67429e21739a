"""Captions from a pool: scored as they finish, failures named, seeds apart. The pool and scorer are scripted here;
tests/integration has the real ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from owlcap.errors import DataError, RewardError
from owlcap.evaluation.captions import evaluate_with_pool
from owlcap.types import (
    Completion,
    RewardBreakdown,
    RolloutFailure,
    RolloutGroup,
    Sample,
    SamplingSettings,
    ScoredRollout,
    Unscored,
)
from rollout.settings import GenerationRequest

GREEDY = SamplingSettings(temperature=0.0)


def sample(id_: str) -> Sample:
    return Sample(id_, f"{id_}.mp4", "Describe the video.", "a caption", "a reference")


class EchoPool:
    """Captions a clip with its id, once a completion; ids that start with "bad" fail. Yields the last first."""

    def __init__(self) -> None:
        self.requests: list[GenerationRequest] = []

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
        self.requests = list(requests)
        for request in reversed(requests):
            id_, count = request.sample.id, request.sampling.num_completions
            if id_.startswith("bad"):
                yield RolloutFailure(request.sample, "VideoError", "the file is truncated")
            else:
                texts = [f"{id_} {i}" for i in range(count)]
                completions = tuple(Completion((1,), (-0.5,), text, "stop", 0) for text in texts)
                yield RolloutGroup(request.sample, completions)


class ByNumber:
    """Scores a caption with the number it ends with; closes like a suite."""

    closed = False

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[ScoredRollout]:
        scores = [float(caption.split()[-1]) for caption in captions]
        return [RewardBreakdown(total=score, parts={}, metrics={"f1": score}) for score in scores]

    async def close(self) -> None:
        self.closed = True


def test_a_failed_clip_is_named_with_its_error_and_the_others_are_scored() -> None:
    scorer = ByNumber()
    report = evaluate_with_pool(EchoPool(), scorer, [sample("a"), sample("bad"), sample("c")], GREEDY)
    assert [row.id for row in report.rows] == ["a", "c"]
    assert [(problem.id, problem.reason) for problem in report.failed] == [("bad", "VideoError: the file is truncated")]
    assert report.num_clips == 3
    assert scorer.closed


def test_several_completions_of_a_clip_are_averaged_within_it() -> None:
    sampling = SamplingSettings(num_completions=3, seed=5)
    report = evaluate_with_pool(EchoPool(), ByNumber(), [sample("a"), sample("b")], sampling)
    assert [row.metrics["f1"] for row in report.rows] == [1.0, 1.0]  # of 0, 1 and 2
    assert report.rows[0].captions == ("a 0", "a 1", "a 2")
    assert report.figure("f1").num_clips == 2


def test_seeded_requests_draw_from_seeds_that_do_not_overlap() -> None:
    pool = EchoPool()
    evaluate_with_pool(
        pool, ByNumber(), [sample("a"), sample("b"), sample("c")], SamplingSettings(num_completions=4, seed=10)
    )
    assert [request.sampling.seed for request in pool.requests] == [10, 14, 18]


def test_prompts_are_not_asked_for_and_greedy_requests_carry_no_seed() -> None:
    pool = EchoPool()
    evaluate_with_pool(pool, ByNumber(), [sample("a")], GREEDY)
    assert [(request.return_prompt, request.sampling.seed) for request in pool.requests] == [(False, None)]


def test_progress_counts_every_clip() -> None:
    seen: list[tuple[int, int]] = []
    samples = [sample("a"), sample("bad"), sample("c")]
    evaluate_with_pool(EchoPool(), ByNumber(), samples, GREEDY, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_clip_is_scored_while_later_ones_are_still_being_captioned() -> None:
    scored = threading.Event()

    class Watched(ByNumber):
        async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[ScoredRollout]:
            scored.set()
            return await super().score_group(sample, captions)

    class Waiting(EchoPool):
        def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[RolloutGroup | RolloutFailure]:
            for number, group in enumerate(super().generate(requests)):
                assert number == 0 or scored.wait(60)  # the first clip's score must not wait for the second clip
                yield group

    report = evaluate_with_pool(Waiting(), Watched(), [sample("a"), sample("b")], GREEDY)
    assert report.num_scored == 2


def test_a_clip_with_no_scored_caption_is_unscored() -> None:
    class Silent(ByNumber):
        async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[ScoredRollout]:
            return [Unscored("cser", "the judge did not answer") for _ in captions]

    report = evaluate_with_pool(EchoPool(), Silent(), [sample("a")], GREEDY)
    assert [(problem.id, problem.reason) for problem in report.unscored] == [("a", "cser: the judge did not answer")]
    assert report.figures == {}


def test_a_reward_that_breaks_its_contract_stops_the_evaluation() -> None:
    class Broken(ByNumber):
        async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[ScoredRollout]:
            raise RewardError("the reward cser returned 2 scores for 1 captions")

    scorer = Broken()
    with pytest.raises(RewardError, match="2 scores for 1 captions"):
        evaluate_with_pool(EchoPool(), scorer, [sample("a")], GREEDY)
    assert scorer.closed


def test_scores_that_never_come_are_an_error_after_the_deadline() -> None:
    class Hanging(ByNumber):
        async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[ScoredRollout]:
            await self.never.wait()
            raise AssertionError("nobody sets it")

        def __init__(self) -> None:
            import asyncio

            self.never = asyncio.Event()

    with pytest.raises(RewardError, match="still unscored"):
        evaluate_with_pool(EchoPool(), Hanging(), [sample("a")], GREEDY, deadline_s=0.1)


def test_two_clips_with_one_id_are_refused_before_anything_is_generated() -> None:
    pool = EchoPool()
    with pytest.raises(DataError, match="two clips have the id 'a'"):
        evaluate_with_pool(pool, ByNumber(), [sample("a"), sample("a")], GREEDY)
    assert pool.requests == []
