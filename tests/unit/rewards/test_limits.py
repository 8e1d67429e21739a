"""Rate limits, in virtual time: requests are spaced as the limit says, first come, first served."""

from __future__ import annotations

import asyncio

import pytest

from owlcap.config import JudgeSection
from rewards.limits import BURST_S, LocalLimiter
from rewards.service import SharedLimiter
from tests.virtual_time import now, run


def limiter(**limits: float) -> LocalLimiter:
    return LocalLimiter({"judge": JudgeSection.model_validate(limits), "other": JudgeSection()})


def admission_times(limits: LocalLimiter, *tokens: float) -> list[float]:
    """When each of several requests that come at once, in this order, is let through."""

    async def at(amount: float) -> float:
        await limits.admit("judge", amount)
        return now()

    async def all_of_them() -> list[float]:
        return list(await asyncio.gather(*(at(amount) for amount in tokens)))

    return run(all_of_them())


def test_without_limits_nothing_waits():
    assert admission_times(limiter(), *[1e9] * 100) == [0.0] * 100


def test_requests_are_a_minute_over_the_limit_apart_after_the_burst():
    times = admission_times(limiter(requests_per_minute=30), *[0] * 10)  # one in 2 s; the burst is 5 s
    assert times == pytest.approx([0, 0, 0, 1, 3, 5, 7, 9, 11, 13])


def test_no_minute_sees_more_than_the_limit_and_the_burst():
    times = admission_times(limiter(requests_per_minute=60), *[0] * 300)
    for start in times:
        in_a_minute = sum(start <= time < start + 60 for time in times)
        assert in_a_minute <= 60 + BURST_S + 1


def test_requests_are_spaced_by_their_tokens():
    times = admission_times(limiter(tokens_per_minute=600), 100, 50, 50)  # 10 a second; the burst is 50
    assert times == pytest.approx([0, 5, 10])


def test_the_tighter_of_two_limits_holds():
    both = limiter(requests_per_minute=60, tokens_per_minute=600)
    assert admission_times(both, 50, 50, 0, 0, 0, 0, 0) == pytest.approx([0, 0, 5, 5, 5, 5, 5])


def test_a_request_larger_than_a_whole_minutes_tokens_goes_through_and_those_after_it_wait():
    assert admission_times(limiter(tokens_per_minute=60), 300, 1) == pytest.approx([0, 295])


def test_a_large_request_is_not_overtaken_by_small_ones():
    times = admission_times(limiter(tokens_per_minute=60), 30, 60, 1, 1, 1)
    assert times == sorted(times)


def test_tokens_beyond_what_was_said_are_paid_by_those_who_come_after():
    limits = limiter(tokens_per_minute=60)

    async def settled(extra: float) -> float:
        await limits.admit("judge", 5)
        await limits.settle("judge", extra)
        await limits.admit("judge", 1)
        return now()

    assert run(settled(20)) == pytest.approx(20)


def test_tokens_said_and_not_used_are_given_back():
    limits = limiter(tokens_per_minute=60)

    async def settled() -> float:
        await limits.admit("judge", 65)
        await limits.settle("judge", -50)
        await limits.admit("judge", 1)
        return now()

    assert run(settled()) == pytest.approx(10)  # 15 were used, 5 of them out of the burst


def test_what_is_given_back_is_no_credit_beyond_the_burst():
    limits = limiter(tokens_per_minute=60)

    async def settled() -> float:
        await limits.settle("judge", -1000)
        await limits.admit("judge", 10)
        await limits.admit("judge", 1)
        return now()

    assert run(settled()) == pytest.approx(5)


def test_a_wait_that_is_cancelled_gives_its_share_back():
    limits = limiter(requests_per_minute=6, tokens_per_minute=60)

    async def second_of_three_gives_up() -> float:
        await limits.admit("judge", 5)
        waiting = asyncio.ensure_future(limits.admit("judge", 50))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await limits.admit("judge", 5)
        return now()

    assert run(second_of_three_gives_up()) == pytest.approx(5)  # 10 s a request, less the burst


def test_a_limiter_serves_one_event_loop_after_another():
    limits = limiter(requests_per_minute=600)
    for _ in range(2):
        asyncio.run(limits.admit("judge", 1))


def test_judges_do_not_share_a_limit():
    limits = limiter(requests_per_minute=1)

    async def one_after_another() -> float:
        await limits.admit("judge", 1)
        await limits.admit("other", 1)
        await limits.settle("other", 5)
        return now()

    assert run(one_after_another()) == 0


class Handle:
    """What a Ray actor's handle looks like: methods with `.remote`, whose result is awaited."""

    def __init__(self, limits: LocalLimiter) -> None:
        self.admit = type("Method", (), {"remote": staticmethod(limits.admit)})
        self.settle = type("Method", (), {"remote": staticmethod(limits.settle)})


def test_processes_that_share_an_actor_share_its_limits():
    actor = Handle(limiter(tokens_per_minute=60))

    async def two_processes() -> float:
        one, other = SharedLimiter(actor), SharedLimiter(actor)
        await one.admit("judge", 10)
        await one.settle("judge", 10)
        await other.admit("judge", 1)
        return now()

    assert run(two_processes()) == pytest.approx(15)
