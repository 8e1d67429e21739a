"""The reward service on a real Ray: groups in, scored groups out, whatever happens to its actors."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError

from owlcap.config import CacheSection, ClusterSection, CserSection, JudgeSection, RewardsSection, RewardTerm
from owlcap.errors import ConfigError, JudgeError, PlacementError, RewardError
from owlcap.types import Completion, RewardBreakdown, RolloutFailure, RolloutGroup, Sample, ScoredGroup, Unscored
from rewards.limits import BURST_S
from rewards.service import MAX_RESTARTS, RewardPool
from tests.judge_server import JudgeServer as ScriptedServer
from tests.judge_server import Reply, failure
from tools.judge_server import MODEL, Behaviour, JudgeServer

pytestmark = pytest.mark.slow

DEADLINE_S = 120.0  # only so that a fault fails the test instead of hanging it
REFERENCE = "Someone in a red shirt jumps."
LENGTH = RewardsSection(terms=(RewardTerm(name="length"),))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of this module's own."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def pools() -> Iterator[list[RewardPool]]:
    """Pools appended here are closed after the test."""
    pools: list[RewardPool] = []
    yield pools
    for pool in pools:
        pool.close()


def group(*captions: str, id: str = "clip-1", reference: str = REFERENCE) -> RolloutGroup:
    sample = Sample(id=id, video="a.mp4", prompt="", caption="", reference=reference)
    completions = (Completion((1,), (-0.5,), caption, "stop", policy_version=3) for caption in captions)
    return RolloutGroup(sample, tuple(completions))


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=DEADLINE_S)


def plugin(folder: Path, body: str) -> RewardsSection:
    """Settings whose only reward is a file's class Mine with this body of score_group."""
    path = folder / "mine.py"
    indented = "".join(f"        {line}\n" for line in body.splitlines())
    path.write_text(
        "import asyncio, os, pathlib\nfrom owlcap.types import Score\n"
        f"FOLDER = pathlib.Path({str(folder)!r})\n"
        "class Mine:\n"
        "    name = 'mine'\n"
        "    def __init__(self, rewards, options):\n"
        "        self.both = asyncio.Barrier(2)\n"
        "    async def score_group(self, sample, captions):\n" + indented
    )
    return RewardsSection(terms=(RewardTerm(name=f"{path}:Mine"),))


def test_a_group_comes_back_scored_in_order(pools: list[RewardPool]):
    pool = RewardPool(RewardsSection(), ClusterSection(reward_workers=2))
    pools.append(pool)
    pool.wait_ready()
    groups = [group(REFERENCE, "Someone squats.", id=f"clip-{i}") for i in range(6)]
    scored: list[ScoredGroup] = get([pool.submit(g) for g in groups])
    for given, result in zip(groups, scored, strict=True):
        assert result.group == given
        assert result.totals == (pytest.approx(2.2), pytest.approx(0.2))
        assert all(isinstance(score, RewardBreakdown) for score in result.scores)
        assert result.score_s > 0


def test_actors_hold_no_training_framework_and_are_named(pools: list[RewardPool]):
    pool = RewardPool(RewardsSection(), ClusterSection(reward_workers=2))
    pools.append(pool)
    get(pool.submit(group(REFERENCE)))

    def heavy(actor: object) -> list[str]:
        return [name for name in ("torch", "transformers", "vllm", "deepspeed", "verl") if name in sys.modules]

    assert get([actor.__ray_call__.remote(heavy) for actor in pool.actors]) == [[], []]
    names = [str(name) for name in ray.util.list_named_actors()]
    assert {name.rsplit("-", 1)[0] for name in names if name.startswith("rewards-")} >= {"rewards-0", "rewards-1"}


def gated(result: RolloutGroup) -> tuple[Any, Any]:
    """A group that is being generated until its gate is opened: the group's reference, and the gate."""

    @ray.remote(num_cpus=0.1)
    class Gate:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def open(self) -> None:
            self.opened.set()

        async def wait(self) -> None:
            await self.opened.wait()

    @ray.remote(num_cpus=0.1)
    def generate(gate: Any, result: RolloutGroup) -> RolloutGroup:
        ray.get(gate.wait.remote())
        return result

    gate = Gate.remote()
    return generate.remote(gate, result), gate


def test_an_unfinished_group_does_not_hold_up_the_next(pools: list[RewardPool]):
    """One actor, the first group still being generated: the second is scored, then the first."""
    pool = RewardPool(LENGTH, ClusterSection(reward_workers=1))
    pools.append(pool)
    unfinished, gate = gated(group("late"))
    late = pool.submit(unfinished)
    early = pool.submit(group("early"))
    assert get(early).group.completions[0].text == "early"
    assert ray.wait([late], timeout=0)[0] == []
    get(gate.open.remote())
    assert get(late).group.completions[0].text == "late"


def test_groups_go_to_the_actor_with_the_fewest_unfinished(pools: list[RewardPool], tmp_path: Path):
    pool = RewardPool(plugin(tmp_path, "return [Score(os.getpid())]"), ClusterSection(reward_workers=2))
    pools.append(pool)
    unfinished, gate = gated(group("a"))
    held = pool.submit(unfinished)
    first, second = get(pool.submit(group("a"))), get(pool.submit(group("a")))
    get(gate.open.remote())
    assert first.totals == second.totals != get(held).totals


def test_one_actor_scores_groups_at_the_same_time(pools: list[RewardPool], tmp_path: Path):
    """Each group waits for the other: one after the other would never end."""
    body = "await self.both.wait()\nreturn [Score(1.0)]"
    pool = RewardPool(plugin(tmp_path, body), ClusterSection(reward_workers=1))
    pools.append(pool)
    scored = get([pool.submit(group("a")) for _ in range(2)])
    assert [result.totals for result in scored] == [(1.0,), (1.0,)]


def test_groups_of_an_actor_that_dies_are_scored_by_its_successor(pools: list[RewardPool], tmp_path: Path):
    body = (
        "if not (FOLDER / 'died').exists():\n"
        "    (FOLDER / 'died').touch()\n"
        "    os._exit(1)\n"
        "return [Score(float(os.getpid())) for _ in captions]"
    )
    pool = RewardPool(plugin(tmp_path, body), ClusterSection(reward_workers=1))
    pools.append(pool)

    def pid(actor: object) -> int:
        return os.getpid()

    before = get(pool.actors[0].__ray_call__.remote(pid))
    scored = get([pool.submit(group("a", id=f"clip-{i}")) for i in range(4)])
    assert (tmp_path / "died").exists()
    pids = {result.totals[0] for result in scored}
    assert len(pids) == 1
    assert pids != {float(before)}


def test_an_actor_that_always_dies_is_an_error_and_not_a_loop(pools: list[RewardPool], tmp_path: Path):
    body = "(FOLDER / f'try-{os.getpid()}').touch()\nos._exit(1)"
    pool = RewardPool(plugin(tmp_path, body), ClusterSection(reward_workers=1))
    pools.append(pool)
    with pytest.raises(RayActorError):
        get(pool.submit(group("a")))
    assert 1 < len(list(tmp_path.glob("try-*"))) <= 1 + MAX_RESTARTS


def test_a_failed_prompt_passes_through(pools: list[RewardPool]):
    pool = RewardPool(LENGTH, ClusterSection())
    pools.append(pool)
    failure = RolloutFailure(group().sample, "VideoError", "empty file")
    assert get(pool.submit(failure)) == failure


def test_what_a_broken_reward_raises_reaches_the_driver_with_its_name(pools: list[RewardPool], tmp_path: Path):
    pool = RewardPool(plugin(tmp_path, "return [Score(float('nan'))]"), ClusterSection())
    pools.append(pool)
    with pytest.raises(RewardError, match="the value of the reward mine is nan") as caught:
        get(pool.submit(group("a")))
    assert isinstance(caught.value, RayTaskError)
    assert get(pool.submit(group())).scores == ()  # the actor lives on


def test_a_judge_that_cannot_be_reached_gives_unscored_rollouts(pools: list[RewardPool]):
    judge = JudgeSection(kind="openai", base_urls=("http://127.0.0.1:1/v1",), call_deadline_s=1.0)
    pool = RewardPool(RewardsSection(judge=judge), ClusterSection())
    pools.append(pool)
    scored = get(pool.submit(group("a", "b")))
    assert scored.totals == (None, None)
    assert all(isinstance(score, Unscored) and "Connection" in score.reason for score in scored.scores)


def test_bad_settings_fail_in_the_driver_before_any_actor_starts():
    with pytest.raises(ConfigError, match='unknown reward "cesr"'):
        RewardPool(RewardsSection(terms=(RewardTerm(name="cesr"),)), ClusterSection())


def test_actors_that_find_no_place_are_a_placement_error(pools: list[RewardPool]):
    pool = RewardPool(LENGTH, ClusterSection(cpus_per_reward=1000, start_deadline_s=0.5))
    pools.append(pool)
    with pytest.raises(PlacementError, match="1 reward actors were not up"):
        pool.wait_ready()


def test_a_closed_pool_takes_nothing():
    pool = RewardPool(LENGTH, ClusterSection())
    get(pool.submit(group("a")))
    pool.close()
    pool.close()
    with pytest.raises(RewardError, match="closed"):
        pool.submit(group("a"))


def judged(server: JudgeServer, **judge: object) -> RewardsSection:
    settings = {"kind": "openai", "model": MODEL, "base_urls": (server.url,), **judge}
    return RewardsSection(
        terms=(RewardTerm(name="cser"),),
        cser=CserSection(mode="joint"),  # one request a caption
        judge=JudgeSection.model_validate(settings),
        cache=CacheSection(enabled=False),
    )


def test_all_actors_share_one_rate_and_a_killed_limiter_comes_back(pools: list[RewardPool]):
    """12 requests at 60 a minute, of which 5 seconds' worth and one go at once: the last waits 6 s of the limiter's
    clock. Three actors with a rate each would send all 12 at once."""
    with JudgeServer() as server:
        pool = RewardPool(judged(server, requests_per_minute=60), ClusterSection(reward_workers=3))
        pools.append(pool)
        assert pool.limiter is not None
        started = time.monotonic()
        scored = get([pool.submit(group(f"Someone squats {i}.", id=f"clip-{i}")) for i in range(12)])
        assert time.monotonic() - started >= 11 - BURST_S  # a lower bound: a slow machine only adds to it
        ray.kill(pool.limiter, no_restart=False)
        assert all(None not in result.totals for result in [*scored, get(pool.submit(group("Someone jumps.")))])


def test_without_a_rate_there_is_no_limiter(pools: list[RewardPool]):
    pools.append(RewardPool(RewardsSection(), ClusterSection()))
    assert pools[0].limiter is None


def test_a_wrong_model_is_one_clear_error_before_any_group(pools: list[RewardPool]):
    with JudgeServer() as server:
        pool = RewardPool(judged(server, model="another"), ClusterSection())
        pools.append(pool)
        with pytest.raises(JudgeError, match='does not have the model "another"') as caught:
            pool.check()
        assert not isinstance(caught.value, RayTaskError)
        assert server.seen.num_requests == 0


def test_usage_is_the_sum_of_all_actors_and_never_falls_when_one_restarts(pools: list[RewardPool]):
    with JudgeServer() as server:
        pool = RewardPool(judged(server), ClusterSection(reward_workers=2))
        pools.append(pool)
        get([pool.submit(group("Someone squats.", id="a")), pool.submit(group("Someone jumps.", id="b"))])
        before = pool.usage()
        assert before.num_requests == server.seen.num_requests == 2
        ray.kill(pool.actors[0], no_restart=False)
        get(pool.actors[0].ready.remote())
        assert pool.usage() == before
        get([pool.submit(group("Someone waves.", id="c")), pool.submit(group("Someone runs.", id="d"))])
        assert pool.usage().num_requests == server.seen.num_requests == 4


def test_every_group_of_a_killed_actor_comes_back_exactly_once(pools: list[RewardPool]):
    """Some in flight at the judge, some queued behind them."""
    with JudgeServer(Behaviour(delay_s=(0.05, 0.1))) as server:
        pool = RewardPool(judged(server, concurrency=2), ClusterSection(reward_workers=2))
        pools.append(pool)
        refs = [pool.submit(group(f"Someone squats {i}.", id=f"clip-{i}")) for i in range(16)]
        assert ray.wait(refs, num_returns=1, timeout=DEADLINE_S)[0]
        ray.kill(pool.actors[0], no_restart=False)
        scored: list[ScoredGroup] = get(refs)
    assert [result.group.sample.id for result in scored] == [f"clip-{i}" for i in range(16)]
    assert all(None not in result.totals for result in scored)


def test_a_cancelled_group_ends_its_request_to_the_judge_and_gives_its_room_to_others(pools: list[RewardPool]):
    """One request at a time: while the first hangs, the judge is asked nothing else."""
    server = ScriptedServer()
    server.replies = [Reply(hang=True), failure(400)]
    try:
        judge = JudgeSection(kind="openai", model="m", base_urls=(server.url,), concurrency=1)
        settings = RewardsSection(
            terms=(RewardTerm(name="cser"),),
            cser=CserSection(mode="joint"),
            judge=judge,
            cache=CacheSection(enabled=False),
        )
        pool = RewardPool(settings, ClusterSection(reward_workers=1))
        pools.append(pool)
        stuck = pool.submit(group("a"))
        assert server.arrived.wait(DEADLINE_S)
        waiting = pool.submit(group("b"))
        pool.cancel(stuck)
        assert server.left.wait(DEADLINE_S)
        with pytest.raises(TaskCancelledError):
            get(stuck)
        assert get(waiting).totals == (None,)  # scored, as far as a judge that refuses goes
    finally:
        server.close()


def test_draining_finishes_what_is_out_and_takes_nothing_more():
    with JudgeServer(Behaviour(delay_s=(0.1, 0.1))) as server:
        pool = RewardPool(judged(server), ClusterSection(reward_workers=2))
        refs = [pool.submit(group(f"Someone squats {i}.")) for i in range(6)]
        pool.drain(DEADLINE_S)
        with pytest.raises(RewardError, match="closed"):
            pool.submit(group("a"))
        assert all(None not in result.totals for result in get(refs))


def test_draining_past_its_deadline_tells_how_many_groups_are_lost():
    pool = RewardPool(LENGTH, ClusterSection())
    unfinished, _gate = gated(group("a"))
    pool.submit(unfinished)
    with pytest.raises(RewardError, match=r"1 groups were not scored within 0\.1 s"):
        pool.drain(0.1)


def test_a_full_pool_takes_a_group_when_another_is_finished(pools: list[RewardPool]):
    pool = RewardPool(LENGTH.model_copy(update={"max_unfinished_groups": 1}), ClusterSection())
    pools.append(pool)
    unfinished, gate = gated(group("a"))
    held = pool.submit(unfinished)
    with pytest.raises(RewardError, match=r"no group was scored within 0\.1 s while 1 were out"):
        pool.submit(group("b"), deadline_s=0.1)
    gate.open.remote()
    assert get(pool.submit(group("b"), deadline_s=DEADLINE_S)).group.completions[0].text == "b"
    assert ray.wait([held], timeout=0)[0]
