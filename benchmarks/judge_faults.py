"""The failure matrix: what the reward path makes of each fault of a judge's server, at 1 %, 5 % and 100 % of requests.

    python benchmarks/judge_faults.py [--captions 192] [--shares 0.01 0.05 1]

Captions of the labelled English set are scored in groups by staged CSER over HTTP, against tools/judge_server.py, with
4 tries a call and a deadline of 4 s a call (so that a server that never answers takes seconds, not minutes). A score
that differs from the one without faults is counted as wrong. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Sequence

from owlcap.config import CacheSection, JudgeSection, RewardsSection, RewardTerm
from owlcap.types import RewardBreakdown, Sample, ScoredRollout
from rewards.chat import Usage
from rewards.labelled import read_rows
from rewards.suite import make_suite
from tools.judge_server import FAULTS, MODEL, Behaviour, JudgeServer

GROUP_SIZE = 6
Group = tuple[Sample, list[str]]


def main() -> None:
    """Score the same captions under every fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=192)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.05, 1.0])
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # a line a retry
    rows = [row for row in read_rows() if row.world == "english"][: arguments.captions // GROUP_SIZE]
    groups = [
        (Sample(row.id, "", "", "", row.reference), [one.caption for one in row.candidates][:GROUP_SIZE])
        for row in rows
    ]
    right, *_ = run(groups, Behaviour())
    figures = []
    print("| fault | of requests | faults | scored | unscored | wrong | retries | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for fault in FAULTS:
        for share in arguments.shares:
            outcomes, usage, num_faults, seconds = run(groups, Behaviour(fail=share, faults=(fault,)))
            scored = [isinstance(outcome, RewardBreakdown) for outcome in outcomes]
            wrong = sum(one not in (None, truth) for one, truth in zip(totals(outcomes), totals(right), strict=True))
            figure = {
                "fault": fault,
                "share": share,
                "faults": num_faults,
                "scored": sum(scored),
                "unscored": len(scored) - sum(scored),
                "wrong": wrong,
                "retries": usage.num_retries,
                "seconds": seconds,
            }
            figures.append(figure)
            print(
                f"| {fault} | {share:.0%} | {num_faults} | {figure['scored']} | {figure['unscored']} | {wrong} | "
                f"{usage.num_retries} | {seconds:.1f} |",
                flush=True,
            )
    print(json.dumps({"benchmark": "judge_faults", "captions": len(right), "figures": figures}))


def totals(outcomes: Sequence[ScoredRollout]) -> list[float | None]:
    """Values; None where unscored."""
    return [outcome.total if isinstance(outcome, RewardBreakdown) else None for outcome in outcomes]


def run(groups: Sequence[Group], behaviour: Behaviour) -> tuple[list[ScoredRollout], Usage, int, float]:
    """Outcomes of all captions, what was asked, the number of faults, and seconds."""
    with JudgeServer(behaviour) as server:
        settings = RewardsSection(
            terms=(RewardTerm(name="cser"),),
            judge=JudgeSection(kind="openai", model=MODEL, base_urls=(server.url,), call_deadline_s=4.0),
            cache=CacheSection(enabled=False),
        )
        started = time.perf_counter()
        outcomes, usage = asyncio.run(score(settings, groups))
        return outcomes, usage, server.seen.faults.total(), time.perf_counter() - started


async def score(settings: RewardsSection, groups: Sequence[Group]) -> tuple[list[ScoredRollout], Usage]:
    """All groups at the same time."""
    suite = make_suite(settings)
    try:
        scored = await asyncio.gather(*(suite.score_group(sample, captions) for sample, captions in groups))
        return [outcome for group in scored for outcome in group], suite.usage
    finally:
        await suite.close()


if __name__ == "__main__":
    main()
