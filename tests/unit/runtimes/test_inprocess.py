"""The in-process runtime: who is asked what, with which state, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from atoll.aggregators import mean
from atoll.core import (
    Algorithm,
    Channel,
    ClientWork,
    Context,
    Failure,
    Payload,
    Reply,
    Request,
    Task,
)
from atoll.runtimes import inprocess
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.servers import average

ROSTER = ("ada", "bob", "cyd")


def _counting(name: str, log: list[tuple[str, str, float]]) -> Algorithm:
    """Work that counts at each client how often it was folded there; `bob` fails in exchange 1."""

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in reversed(requests):
            context = request.context
            count = float(request.state.get(name, {}).get("count", torch.zeros(())))
            log.append((name, context.client, count))
            if (context.client, context.exchange) == ("bob", 1):
                yield Failure("bob", "device", "asleep")
                continue
            sent = {"update": Channel({"w": request.payload["adapter"].tree["w"] + count})}
            yield Reply(context.client, sent, {name: {"count": torch.tensor(count + 1)}})

    def template(broadcast: Payload) -> Payload:
        return {"update": Channel(broadcast["adapter"].tree)}

    return Algorithm(name, ClientWork(name, template, work, ("update",)), (), mean(), average())


def _task(name: str, exchange: int, round: int, folded: dict[str, int]) -> Task:
    context = Context(0, "run", round, exchange, ROSTER, len(ROSTER))

    def broadcast(client: str) -> Payload:
        return {"adapter": Channel({"w": torch.tensor(float(ord(client[0])))})}

    return Task(name, context, broadcast, folded)


def test_every_client_gets_its_own_broadcast_and_context() -> None:
    log: list[tuple[str, str, float]] = []
    runtime = InProcess(ROSTER, {"a": _counting("a", log)}, memory_store())
    replies = list(runtime.call([_task("a", 0, 1, {})], ("ada", "cyd")))
    assert [reply.client for reply in replies] == ["cyd", "ada"]
    for reply in replies:
        assert isinstance(reply, Reply)
        assert float(reply.payload["update"].tree["w"]) == ord(reply.client[0])


def test_only_what_was_folded_is_built_upon() -> None:
    log: list[tuple[str, str, float]] = []
    runtime = InProcess(ROSTER, {"a": _counting("a", log)}, memory_store())

    def ask(exchange: int, folded: dict[str, int]) -> dict[str, float]:
        log.clear()
        list(runtime.call([_task("a", exchange, exchange + 1, folded)], ROSTER))
        return {client: count for _, client, count in log}

    assert ask(0, {}) == {"ada": 0, "bob": 0, "cyd": 0}
    assert ask(1, dict.fromkeys(ROSTER, 0)) == {"ada": 1, "bob": 1, "cyd": 1}
    # ada's reply was lost, bob failed, cyd's was folded.
    assert ask(2, {"ada": 0, "bob": 0, "cyd": 1}) == {"ada": 1, "bob": 1, "cyd": 2}


def test_algorithms_keep_their_own_state_at_a_client() -> None:
    log: list[tuple[str, str, float]] = []
    algorithms = {name: _counting(name, log) for name in "ab"}
    runtime = InProcess(ROSTER, algorithms, memory_store())
    for exchange, name in enumerate("aabba"):
        folded = dict.fromkeys(ROSTER, exchange - 1) if exchange else {}
        list(runtime.call([_task(name, exchange, exchange + 1, folded)], ROSTER))
    assert [count for name, client, count in log if client == "ada"] == [0, 1, 0, 1, 2]


def test_tasks_that_travel_together_start_from_one_state() -> None:
    log: list[tuple[str, str, float]] = []
    runtime = InProcess(ROSTER, {"a": _counting("a", log)}, memory_store())
    list(runtime.call([_task("a", 0, 1, {})], ROSTER))
    folded = dict.fromkeys(ROSTER, 0)
    replies = list(runtime.call([_task("a", 1, 2, folded), _task("a", 2, 3, folded)], ROSTER))
    assert len(replies) == 6
    assert [count for _, client, count in log if client == "ada"] == [0, 1, 1]
    # What the first of them left is still there when it is folded, and the second is not.
    log.clear()
    list(runtime.call([_task("a", 3, 4, dict.fromkeys(ROSTER, 1))], ROSTER))
    assert {client: count for _, client, count in log}["ada"] == 2


def test_work_sees_few_states_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        sizes.append(len(requests))
        for request in requests:
            yield Failure(request.context.client, "device", "asleep")

    monkeypatch.setattr(inprocess, "AT_ONCE", 4)
    silent = Algorithm("a", ClientWork("a", lambda b: b, work, ("update",)), (), mean(), average())
    roster = tuple(f"c{i}" for i in range(10))
    runtime = InProcess(roster, {"a": silent}, memory_store())
    replies = list(runtime.call([_task("a", 0, 1, {})], roster))
    assert sizes == [4, 4, 2]
    assert [reply.client for reply in replies] == list(roster)
    assert list(runtime.call([_task("a", 1, 2, {})], ())) == []
