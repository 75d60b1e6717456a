"""Messages on their way to a client: which are hoped for, and which are sent again."""

from __future__ import annotations

import pytest
import torch

from atoll.core import Channel, Context, Payload, Task
from atoll.runtimes import underway
from atoll.runtimes.asking import Asking
from atoll.runtimes.letters import Call
from atoll.runtimes.underway import Underway
from atoll.tree import Tree


class Clock:
    """Time, as a test has it pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def call(*, fetch: int | None = None) -> Call:
    return Call(run=32 * "a", letter="r1", size=1, digest=64 * "0", piece=None, fetch=fetch)


def test_what_another_answer_overtook_is_lost_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = Clock(), Underway()
    monkeypatch.setattr(underway, "monotonic", clock)
    sent.went(1, call(), 2**20)
    sent.went(2, call(fetch=0), 0)
    sent.went(3, call(), 0)
    assert sent.back(3) is not None
    assert sent.back(3) is None
    clock.now += underway.OVERTAKEN + 1
    # A piece of an answer is large, and may take its time behind a small one.
    assert [one.call.fetch for one in sent.about(64 * "0")] == [0]
    assert len(sent) == 1
    clock.now += underway.LOST
    assert sent.about(64 * "0") == []


def test_what_nothing_overtook_has_the_time_that_its_bytes_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, sent = Clock(), Underway()
    monkeypatch.setattr(underway, "monotonic", clock)
    sent.went(1, call(), 20 * underway.SLOWEST)
    clock.now += underway.LOST + 19
    assert sent.digest(1) == 64 * "0"
    assert len(sent.about(64 * "0")) == 1
    clock.now += 2
    assert sent.about(64 * "0") == []
    assert sent.digest(1) == ""


def test_payloads_of_neighbours_that_differ_are_packed_once_each() -> None:
    """Of a cohort, every second client has the last adapter."""
    trees: list[Tree] = [{"w": torch.zeros(2)}, {"w": torch.ones(3)}]
    names = tuple(f"c{number}" for number in range(6))

    def broadcast(client: str) -> Payload:
        return {"adapter": Channel(trees[names.index(client) % 2])}

    asking = Asking([Task("fit", Context(0, "r", 1, 1, names, 6), broadcast, {})], number=0)
    frames = [list(asking.frames([name], set())) for name in names]
    assert [one[0].number for one in frames] == [0, 2, 0, 2, 0, 2]
    assert frames[0][0].data is frames[2][0].data
