"""The circuit breaker and the choice of a server, in virtual time and without servers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import pytest

from owlcap.config import JudgeSection
from rewards.chat import InvalidReply
from rewards.endpoints import LOOK_AGAIN_S, Endpoint, Endpoints
from rewards.faults import ServerFault
from tests.virtual_time import now, run

OUTAGE = ServerFault("HTTP 500", cure=None)
REFUSED = ServerFault("refused", cure="start it", is_refused=True)
BAD_REQUEST = ServerFault("HTTP 400", cure=None, retry=False, is_outage=False)
REST_S = 30.0


def servers(num: int = 1, failures: int = 3) -> tuple[Endpoints, list[Endpoint]]:
    """Endpoints whose clients are their own numbers."""
    each = [Endpoint(f"http://{number}/v1", cast(Any, number)) for number in range(num)]
    return Endpoints(each, JudgeSection(breaker_failures=failures, breaker_rest_s=REST_S)), each


async def ask(endpoints: Endpoints, outcome: Exception | None = None) -> int:
    """The number of the server that was asked."""
    number = -1
    with suppress(ServerFault, InvalidReply):
        async with endpoints.lease() as client:
            number = cast(int, client)
            if outcome is not None:
                raise outcome
    return number


async def play(endpoints: Endpoints, outcomes: Sequence[Exception | None]) -> float:
    """When the next request is let through after these, one after the other."""
    for outcome in outcomes:
        await ask(endpoints, outcome)
    await ask(endpoints)
    return now()


@pytest.mark.parametrize(
    ("outcomes", "rests"),
    [
        ([OUTAGE, OUTAGE], False),
        ([OUTAGE, OUTAGE, OUTAGE], True),
        ([OUTAGE, OUTAGE, None, OUTAGE, OUTAGE], False),
        ([REFUSED], True),
        ([BAD_REQUEST] * 9, False),
        ([InvalidReply("what?")] * 9, False),
        ([OUTAGE, OUTAGE, BAD_REQUEST, OUTAGE, OUTAGE], False),
        ([OUTAGE, OUTAGE, InvalidReply("what?"), OUTAGE, OUTAGE], False),
    ],
)
def test_a_server_rests_after_so_many_outages_in_a_row_or_one_refusal(outcomes: list[Exception | None], rests: bool):
    endpoints, _ = servers()
    waited = run(play(endpoints, outcomes))
    assert (REST_S <= waited <= REST_S + LOOK_AGAIN_S) if rests else waited == 0


def test_one_request_tries_a_server_after_its_rest_and_the_others_wait_for_the_outcome():
    endpoints, (server,) = servers()

    async def main() -> list[float]:
        await ask(endpoints, REFUSED)
        began: list[float] = []

        async def slow() -> None:
            async with endpoints.lease():
                began.append(now())
                await asyncio.sleep(5)

        await asyncio.gather(*(slow() for _ in range(3)))
        return began

    trial, *others = run(main())
    assert trial == pytest.approx(REST_S, abs=LOOK_AGAIN_S)
    assert others == pytest.approx([trial + 5] * 2, abs=LOOK_AGAIN_S)
    assert (server.num_failures, server.rests_until, endpoints.fault) == (0, None, None)


def test_a_trial_that_fails_begins_another_rest_at_once():
    endpoints, _ = servers(failures=3)
    waited = run(play(endpoints, [OUTAGE, OUTAGE, OUTAGE, OUTAGE]))
    assert waited == pytest.approx(2 * REST_S, abs=2 * LOOK_AGAIN_S)


def test_a_trial_that_gets_an_error_of_the_request_shows_that_the_server_is_back():
    endpoints, (server,) = servers()
    run(play(endpoints, [REFUSED, BAD_REQUEST]))
    assert server.rests_until is None


def test_a_trial_that_is_cancelled_leaves_the_next_request_to_try():
    endpoints, (server,) = servers()

    async def main() -> float:
        await ask(endpoints, REFUSED)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(REST_S + 10), endpoints.lease():
                await asyncio.sleep(3600)
        assert (server.is_tried, server.in_flight) == (False, 0)
        await ask(endpoints)
        return now()

    assert run(main()) == REST_S + 10


def test_while_all_rest_a_call_waits_no_longer_than_its_deadline_and_the_reason_is_known():
    endpoints, _ = servers(2)

    async def main() -> float:
        await ask(endpoints, REFUSED)
        await ask(endpoints, REFUSED)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7), endpoints.lease():
                pytest.fail("a resting server was asked")
        return now()

    assert run(main()) == 7
    assert endpoints.fault is REFUSED


def test_requests_from_before_a_rest_do_not_lengthen_it():
    endpoints, (server,) = servers(failures=1)

    async def fails_at(second: float) -> None:
        with suppress(ServerFault):
            async with endpoints.lease():
                await asyncio.sleep(second)
                raise OUTAGE

    async def main() -> float | None:
        await asyncio.gather(fails_at(1), fails_at(20))
        return server.rests_until

    assert run(main()) == 1 + REST_S


def test_a_late_answer_ends_a_rest():
    endpoints, _ = servers(failures=1)

    async def main() -> float:
        async with endpoints.lease():
            await ask(endpoints, OUTAGE)
            await asyncio.sleep(4)
        await ask(endpoints)
        return now()

    assert run(main()) == 4


def test_the_server_with_the_fewest_requests_in_flight_is_asked():
    endpoints, _ = servers(3)

    async def main() -> list[int]:
        async with endpoints.lease() as first, endpoints.lease() as second, endpoints.lease() as third:
            return [cast(int, one) for one in (first, second, third)]

    assert run(main()) == [0, 1, 2]


def test_what_failed_at_one_server_is_tried_at_another():
    endpoints, _ = servers(2, failures=100)

    async def main() -> list[int]:
        return [await ask(endpoints, OUTAGE), await ask(endpoints), await ask(endpoints)]

    assert run(main()) == [0, 1, 1]


def test_a_server_that_failed_once_is_asked_again_when_the_other_is_as_busy():
    endpoints, _ = servers(2)

    async def main() -> list[int]:
        await ask(endpoints, OUTAGE)
        return await _three_at_once(endpoints)

    assert run(main()) == [1, 0, 1]


async def _three_at_once(endpoints: Endpoints) -> list[int]:
    async with endpoints.lease() as first, endpoints.lease() as second, endpoints.lease() as third:
        return [cast(int, one) for one in (first, second, third)]


def test_a_resting_server_is_left_out_while_another_answers():
    endpoints, _ = servers(2)

    async def main() -> list[int]:
        await ask(endpoints, REFUSED)
        return await _three_at_once(endpoints)

    assert run(main()) == [1, 1, 1]
