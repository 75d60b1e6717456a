"""Turns at the gate: few at a time, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from atoll.flower import turns
from atoll.flower.turns import TOGETHER, Turns


async def held(own: Turns, going: list[int], most: list[int], until: asyncio.Event) -> None:
    async with own.turn(needed=True):
        going.append(1)
        most.append(len(going))
        await until.wait()
        going.pop()


def test_so_many_have_a_turn_and_the_others_wait() -> None:
    async def tried() -> list[int]:
        own, until = Turns(), asyncio.Event()
        going, most = list[int](), list[int]()
        tasks = [asyncio.create_task(held(own, going, most, until)) for _ in range(3 * TOGETHER)]
        while len(going) < TOGETHER:
            await asyncio.sleep(0)
        async with own.turn(needed=False):
            until.set()
        await asyncio.gather(*tasks)
        return most

    most = asyncio.run(tried())
    assert (len(most), max(most)) == (3 * TOGETHER, TOGETHER)


def test_who_is_slow_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.05)

    async def tried() -> None:
        own, until = Turns(), asyncio.Event()
        going, most = list[int](), list[int]()
        tasks = [asyncio.create_task(held(own, going, most, until)) for _ in range(TOGETHER)]
        while len(going) < TOGETHER:
            await asyncio.sleep(0)
        async with own.turn(needed=True):
            assert len(going) == TOGETHER
        until.set()
        await asyncio.gather(*tasks)
        # Whoever had none gave none back.
        monkeypatch.setattr(turns, "PATIENCE", 60.0)
        again = asyncio.Event()
        tasks = [asyncio.create_task(held(own, going, most, again)) for _ in range(TOGETHER + 1)]
        while len(going) < TOGETHER:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert len(going) == TOGETHER
        again.set()
        await asyncio.gather(*tasks)

    asyncio.run(tried())
