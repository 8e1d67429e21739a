"""A benchmark's texts judged through the rewards' judge: its limits, retries and cache of replies.

Replies are kept by what was asked, so that a run which was stopped, or whose judge failed half-way, is finished by
the same command, and no answered question is paid for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from owlcap.config import JudgeSection, MonitorsSection, RewardsSection
from owlcap.errors import JudgeError, one_line
from owlcap.evaluation.benchmarks.values import Benchmark, C, Case, Cost, ItemScore
from owlcap.evaluation.report import ClipProblem
from rewards.chat import Usage
from rewards.judges import Judges, check_length

CHARACTERS_A_TOKEN = 4  # of English, roughly


def judge_texts(
    benchmark: Benchmark[C],
    cases: Sequence[C],
    texts: Mapping[str, str],
    settings: RewardsSection,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[ItemScore], list[ClipProblem], Usage]:
    """Scores of the cases that have a text, in their order; those that could not be judged; what was spent.

    Raises:
        ConfigError: the judge is no language model.
        JudgeError: the judge's server is not there, before anything is judged.
    """
    return asyncio.run(_judge_and_close(benchmark, cases, texts, settings, progress))


def check_judge(settings: RewardsSection) -> None:
    """Ask the judge's server whether it is there. Raises JudgeError."""

    async def check() -> None:
        judges = _judges(settings)
        try:
            await judges.check()
        finally:
            await judges.close()

    asyncio.run(check())


async def _judge_and_close(
    benchmark: Benchmark[C],
    cases: Sequence[C],
    texts: Mapping[str, str],
    settings: RewardsSection,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[ItemScore], list[ClipProblem], Usage]:
    judges = _judges(settings)
    model = judges.model
    present = [case for case in cases if case.id in texts]
    slots = asyncio.Semaphore(settings.judge.concurrency)
    num_done = 0

    async def one(case: C) -> ItemScore | ClipProblem:
        nonlocal num_done
        async with slots:
            try:
                check_length("text", texts[case.id], settings.judge)
                found = await benchmark.judge(model, case, texts[case.id])
            except JudgeError as error:
                found = ClipProblem(case.id, one_line(error))
        num_done += 1
        if progress:
            progress(num_done, len(present))
        return found

    try:
        await judges.check()
        outcomes = await asyncio.gather(*(one(case) for case in present))
    finally:
        await judges.close()
    scores = [outcome for outcome in outcomes if isinstance(outcome, ItemScore)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, ClipProblem)]
    return scores, failed, judges.usage


def _judges(settings: RewardsSection) -> Judges:
    """The run's own judge alone: benchmarks ask one model."""
    return Judges(settings.model_copy(update={"panel": (), "monitors": MonitorsSection()}))


def total_cost(benchmark: Benchmark[C], cases: Sequence[C], texts: Mapping[str, str]) -> Cost:
    """Of judging all texts that are there."""
    return sum((benchmark.cost(case, texts[case.id]) for case in cases if case.id in texts), Cost())


def cost_line(cost: Cost, num_texts: int, judge: JudgeSection) -> str:
    """What judging will take at most, in words."""
    inputs = cost.num_characters // CHARACTERS_A_TOKEN
    usd = (inputs * judge.usd_per_million_input + cost.output_tokens * judge.usd_per_million_output) / 1e6
    return (
        f"{num_texts} texts: at most {cost.num_calls} judge calls, about {inputs} input and "
        f"{cost.output_tokens} output tokens, {usd:.4f} USD; what is in the cache costs nothing\n"
        f"a judge that stops answering: each call is given up after {judge.call_deadline_s:g} s "
        "(rewards.judge.call_deadline_s), and its item is left out"
    )


def missing_ids(cases: Sequence[Case], texts: Mapping[str, str]) -> tuple[str, ...]:
    """Cases without a text."""
    return tuple(case.id for case in cases if case.id not in texts)
