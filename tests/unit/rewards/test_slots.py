"""Calls in flight of one judge."""

from __future__ import annotations

import asyncio

from rewards.slots import Slots


async def _hold(slots: Slots, name: str, log: list[str], leave: asyncio.Event, *, further_try: bool = False) -> None:
    async with slots.hold(further_try=further_try):
        log.append(name)
        await leave.wait()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_more_than_the_limit_are_in_and_others_come_in_their_order() -> None:
    async def run() -> None:
        slots, log = Slots(2), []
        leave = [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.create_task(_hold(slots, str(i), log, leave[i])) for i in range(4)]
        await _settle()
        assert log == ["0", "1"]
        leave[1].set()
        await _settle()
        assert log == ["0", "1", "2"]
        for event in leave:
            event.set()
        await asyncio.gather(*tasks)
        assert log == ["0", "1", "2", "3"]

    asyncio.run(run())


def test_a_further_try_is_let_in_before_a_new_call_that_waits_longer() -> None:
    async def run() -> None:
        slots, log, first, rest = Slots(1), [], asyncio.Event(), asyncio.Event()
        rest.set()
        tasks = [asyncio.create_task(_hold(slots, "first", log, first))]
        await _settle()
        tasks.append(asyncio.create_task(_hold(slots, "new", log, rest)))
        await _settle()
        tasks.append(asyncio.create_task(_hold(slots, "again", log, rest, further_try=True)))
        await _settle()
        first.set()
        await asyncio.gather(*tasks)
        assert log == ["first", "again", "new"]

    asyncio.run(run())


def test_a_call_cancelled_while_it_waits_leaves_its_turn_to_the_next() -> None:
    async def run() -> list[str]:
        slots, log, first, rest = Slots(1), [], asyncio.Event(), asyncio.Event()
        rest.set()
        holder = asyncio.create_task(_hold(slots, "first", log, first))
        await _settle()
        waiting = asyncio.create_task(_hold(slots, "cancelled", log, rest))
        await _settle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        first.set()
        await holder
        await asyncio.wait_for(_hold(slots, "next", log, rest), timeout=5)
        return log

    assert asyncio.run(run()) == ["first", "next"]


def test_a_call_cancelled_as_it_is_let_in_gives_its_slot_back() -> None:
    async def run() -> list[str]:
        slots, log, rest = Slots(1), [], asyncio.Event()
        rest.set()
        async with slots.hold(further_try=False):
            waiting = asyncio.create_task(_hold(slots, "cancelled", log, rest))
            await _settle()
        waiting.cancel()  # the slot is handed over, but its new holder has not run since
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(_hold(slots, "next", log, rest), timeout=5)
        return log

    assert asyncio.run(run()) == ["next"]
