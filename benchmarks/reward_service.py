"""Rollouts a second of the reward service, against what its judge allows and against one call after another.

    python benchmarks/reward_service.py [--groups 384] [--scale 0.03] [--concurrency 32]

The judge is tools/judge_server.py in a process of its own: each reply takes 1-40 s at random, times --scale, and 0, 1
or 5 % of requests have a fault that passes. Two reward actors on Ray ask it with --concurrency calls in flight.

- service: all groups of 8 are handed over at once. `allowed` is what --concurrency calls in flight could do: the
  judge's own seconds, summed over the requests that it got, divided by the concurrency.
- sequential: one joint call a rollout, each after the other, as in the released code: the same mean seconds a request,
  measured in the same run, times one request a rollout.
- hidden: groups arrive one by one over as long as judging takes, as from generation; the share of judge time that is
  over before the last group has arrived.

Each score is compared with the one without faults or delay: `wrong` counts those that differ, `lost` rollouts without
an outcome. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray

from owlcap.config import CacheSection, ClusterSection, CserSection, JudgeSection, RewardsSection, RewardTerm
from owlcap.types import Completion, RewardBreakdown, RolloutGroup, Sample, ScoredGroup
from rewards.labelled import read_rows
from rewards.service import RewardPool
from rewards.suite import make_suite
from tools.judge_server import MODEL, JudgeServer

GROUP_SIZE = 8
SHORTEST_S, LONGEST_S = 1.0, 40.0
SERVER = Path(__file__).parents[1] / "tools" / "judge_server.py"


@dataclass(frozen=True)
class Judge:
    """The server's address and what it did so far."""

    url: str

    def stats(self) -> tuple[int, float]:
        """Requests so far, and seconds that their replies took."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/stats") as reply:
            told = json.load(reply)
        return told["requests"], told["busy_s"]


def main() -> None:
    """Measure at each share of faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=384)
    parser.add_argument("--scale", type=float, default=0.03, help="of the judge's 1-40 s")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--mode", choices=("staged", "joint"), default="joint")
    arguments = parser.parse_args()
    groups = make_groups(arguments.groups)
    right = true_totals(groups, arguments.mode)
    ray.init(address="local", num_cpus=4, include_dashboard=False, configure_logging=False)
    figures = [measure(groups, right, arguments, fail) for fail in (0.0, 0.01, 0.05)]
    ray.shutdown()
    print("| faults | rollouts/s | allowed | of it | sequential | faster | hidden | unscored | wrong | lost |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for f in figures:
        print(
            f"| {f['fail']:.0%} | {f['service']:.1f} | {f['allowed']:.1f} | {f['of_allowed']:.0%} | "
            f"{f['sequential']:.2f} | {f['faster']:.0f}x | {f['hidden']:.0%} | {f['unscored']} | {f['wrong']} | "
            f"{f['lost']} |"
        )
    settings = {name: getattr(arguments, name) for name in ("groups", "scale", "concurrency", "mode")}
    print(json.dumps({"benchmark": "reward_service", **settings, "figures": figures}))


def measure(
    groups: Sequence[RolloutGroup], right: Sequence[float], arguments: argparse.Namespace, fail: float
) -> dict[str, float]:
    """Figures at one share of faults."""
    num_rollouts = len(groups) * GROUP_SIZE
    with judge(arguments.scale, fail) as server, reward_pool(server, arguments) as pool:
        asked, busy_s = server.stats()
        started = time.perf_counter()
        scored: list[ScoredGroup] = ray.get([pool.submit(group) for group in groups])
        seconds = time.perf_counter() - started
        asked, busy_s = server.stats()[0] - asked, server.stats()[1] - busy_s
    with judge(arguments.scale, fail) as server, reward_pool(server, arguments) as pool:
        hidden = hidden_share(groups, pool, server, seconds)
    totals = [total for group in scored for total in group.totals]
    allowed = num_rollouts / (busy_s / arguments.concurrency)
    return {
        "fail": fail,
        "service": num_rollouts / seconds,
        "allowed": allowed,
        "of_allowed": num_rollouts / seconds / allowed,
        "sequential": asked / busy_s,
        "faster": num_rollouts / seconds / (asked / busy_s),
        "hidden": hidden,
        "unscored": totals.count(None),
        "wrong": sum(total not in (None, truth) for total, truth in zip(totals, right, strict=True)),
        "lost": num_rollouts - len(totals),
    }


def hidden_share(groups: Sequence[RolloutGroup], pool: RewardPool, server: Judge, seconds: float) -> float:
    """Hand groups over one by one, over one and a half times as long as judging takes at full load."""
    references = []
    for group in groups:
        references.append(pool.submit(group))
        time.sleep(1.5 * seconds / len(groups))
    before = server.stats()[1]
    ray.get(references)
    return before / server.stats()[1]


@contextmanager
def judge(scale: float, fail: float) -> Iterator[Judge]:
    """The judge's server in a process of its own."""
    command = [sys.executable, str(SERVER), "--port", "0", "--fail", str(fail)]
    command += ["--delay", f"{SHORTEST_S * scale}-{LONGEST_S * scale}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http\S+", process.stdout.readline())
        assert found is not None, "the judge's server did not start"
        yield Judge(found[0])
    finally:
        process.terminate()
        process.wait()


@contextmanager
def reward_pool(server: Judge, arguments: argparse.Namespace) -> Iterator[RewardPool]:
    """Two reward actors that are up."""
    pool = RewardPool(settings_of(server.url, arguments.mode, arguments.concurrency), ClusterSection(reward_workers=2))
    pool.wait_ready()
    warm = make_groups(4, prefix="Warm-up: ")
    ray.get([pool.submit(group) for group in warm])  # the first call imports the client and opens connections
    try:
        yield pool
    finally:
        pool.close()


def settings_of(url: str, mode: str, concurrency: int) -> RewardsSection:
    """CSER by the server."""
    return RewardsSection(
        terms=(RewardTerm(name="cser"),),
        cser=CserSection.model_validate({"mode": mode}),
        judge=JudgeSection(kind="openai", model=MODEL, base_urls=(url,), concurrency=concurrency),
        cache=CacheSection(enabled=False),
    )


def true_totals(groups: Sequence[RolloutGroup], mode: str) -> list[float]:
    """Scores without faults or delay."""

    async def score(url: str) -> list[float]:
        suite = make_suite(settings_of(url, mode, 8))
        totals: list[float] = []
        for group in groups:
            outcomes = await suite.score_group(group.sample, [one.text for one in group.completions])
            totals += [outcome.total for outcome in outcomes if isinstance(outcome, RewardBreakdown)]
        await suite.close()
        return totals

    with JudgeServer() as server:
        return asyncio.run(score(server.url))


def make_groups(count: int, prefix: str = "") -> list[RolloutGroup]:
    """Groups of the labelled English set's rows: 8 captions each, all different."""
    rows = [row for row in read_rows() if row.world == "english"]
    groups: list[RolloutGroup] = []
    for number in range(count):
        row = rows[number % len(rows)]
        captions = [f"{prefix}Take {number}: {one.caption}" for one in row.candidates]
        captions = (captions + [f"{caption} The take ends." for caption in captions])[:GROUP_SIZE]
        completions = tuple(Completion((1,), (0.0,), caption, "stop", 0) for caption in captions)
        groups.append(RolloutGroup(Sample(f"{row.id}-{number}", "", "", "", row.reference), completions))
    return groups


if __name__ == "__main__":
    main()
