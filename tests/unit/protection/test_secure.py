"""Secure sums in the loop: the same aggregate, whoever stops, and a sum alone at the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atoll.aggregators import mean
from atoll.core import (
    ATTEMPTS,
    Algorithm,
    Channel,
    ClientWork,
    Failure,
    Federation,
    Payload,
    Position,
    Program,
    Reply,
    Report,
    Request,
    Runtime,
    Task,
    Tree,
)
from atoll.errors import PROTOCOL, QuorumError
from atoll.protection.outside import Outside
from atoll.protection.secure import Party, Secure, masks
from atoll.protection.speaking import SIDE, SPEAKING, STEPS, speaking
from atoll.protection.summed import MASKED, Summed, root_of
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.secagg import Folder, Held, Identity, Member, Terms, most_bits, roster_verifier
from atoll.servers import average
from atoll.stages import by_examples, uniform

ROSTER = tuple("abcdefgh")
SHAPE = (3, 7)
RANGES = {"update": 4.0, "weight": 8.0, "examples": 8.0, "metrics": 10.0}


def _payload(update: torch.Tensor, count: float, loss: float) -> Payload:
    return {
        "update": Channel({"w": update, "v": 2 * update[0]}, "mean", weight="weight"),
        "weight": Channel({"value": torch.tensor(1.0)}, "sum"),
        "examples": Channel({"count": torch.tensor(float(count))}, "sum"),
        "metrics": Channel({"loss": torch.tensor(float(loss))}, "mean", weight="examples"),
    }


def _update(name: str, number: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(ord(name) + 100 * number)
    return torch.rand(SHAPE, generator=draw) * 2 - 1


def _toy(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
    for request in requests:
        name, number = request.context.client, request.context.round
        count = ROSTER.index(name) + 1
        yield Reply(name, _payload(_update(name, number), count, loss=ord(name) / 100))


WORK = ClientWork(
    "toy",
    lambda broadcast: _payload(torch.zeros(SHAPE), 0, 0),
    _toy,
    ("update", "weight", "examples", "metrics"),
)
IDENTITIES = {name: Identity.new() for name in ROSTER}
VERIFY = roster_verifier({name: one.public for name, one in IDENTITIES.items()})


def _members() -> dict[str, Member]:
    return {name: Member(name, one.sign, VERIFY, Held()) for name, one in IDENTITIES.items()}


def _algorithms(
    *,
    weighing: bool = True,
    floor: int = 3,
    members: dict[str, Member] | None = None,
    run: str = "",
) -> dict[str, Algorithm]:
    members = members or _members()
    summed = Summed(_payload(torch.zeros(SHAPE), 0, 0), RANGES, undivided=False, most=8)
    secure = Secure(summed, Terms(floor=floor), run=run)
    party = Party(secure, members.__getitem__, Outside(print, 1))
    stages = (by_examples() if weighing else uniform(), masks(secure, party, VERIFY))
    return {
        "toy": Algorithm("toy", WORK, stages, mean(), average()),
        SPEAKING: speaking(party.says),
    }


@dataclass
class Wire:
    """A runtime that hears all, and loses what it is told to, in the first attempts.

    lost: (step, client).   times: attempts in which they are.   changed: messages on their way.
    """

    inner: InProcess
    lost: frozenset[tuple[str, str]] = frozenset()
    times: int = ATTEMPTS
    changed: Mapping[tuple[str, str], Callable[[Tree], Tree]] = field(default_factory=dict)
    heard: list[tuple[str, Reply]] = field(default_factory=list)

    @property
    def roster(self) -> tuple[str, ...]:
        return self.inner.roster

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        for task in tasks:
            step = "train" if task.algorithm == "toy" else STEPS[task.context.exchange // SIDE]
            lost = self.lost if task.context.attempt < self.times else frozenset()
            reached = [client for client in clients if (step, client) not in lost]
            for reply in self.inner.call([task], reached):
                if isinstance(reply, Reply):
                    self.heard.append((step, reply))
                    change = self.changed.get((step, reply.client))
                    reply = _changed(reply, change) if change else reply
                yield reply
            for client in clients:
                if client not in reached:
                    yield Failure(client, "absent", f"lost at {step}")


def _changed(reply: Reply, change: Callable[[Tree], Tree]) -> Reply:
    ((name, channel),) = reply.payload.items()
    return replace(reply, payload={name: replace(channel, tree=change(channel.tree))})


def _run(
    algorithms: dict[str, Algorithm], runtime: Runtime, rounds: int = 2, cohort: int = 8
) -> list[Report]:
    plan = Federation(1, "toy", rounds, cohort, min_clients=1)
    start = Position({"adapter": {"w": torch.zeros(SHAPE), "v": torch.zeros(SHAPE[1])}})
    program = Program(algorithms, lambda number: ("toy",) if number else ())
    return list(federate(program, runtime, plan, start))


def _wire(algorithms: dict[str, Algorithm], *lost: tuple[str, str]) -> Wire:
    return Wire(InProcess(ROSTER, algorithms, memory_store()), frozenset(lost))


def _weighted(names: Sequence[str], number: int, *, weighing: bool = True) -> torch.Tensor:
    weights = [ROSTER.index(name) + 1.0 if weighing else 1.0 for name in names]
    parts = [w * _update(name, number) for name, w in zip(names, weights, strict=True)]
    return sum(parts, torch.zeros(SHAPE)) / sum(weights)


def _tolerance(clients: int, *, weighing: bool = True) -> float:
    """A grid step for each client, over the least weight that a sum of them has."""
    top = (1 << most_bits(8) - 1) - 1
    bound = RANGES["update"] * (RANGES["weight"] if weighing else 1.0)
    return clients * bound / top


@pytest.mark.parametrize("weighing", [True, False])
def test_the_aggregate_is_the_mean_that_plain_replies_give(weighing: bool) -> None:
    algorithms = _algorithms(weighing=weighing)
    reports = _run(algorithms, _wire(algorithms))
    moved = torch.zeros(SHAPE)
    for report in reports[1:]:
        moved += _weighted(ROSTER, report.round, weighing=weighing)
        found = report.position.server["adapter"]
        assert torch.allclose(found["w"], moved, atol=4 * _tolerance(8, weighing=weighing))
        assert torch.allclose(found["v"], 2 * moved[0], atol=4 * _tolerance(8, weighing=weighing))
        (exchange,) = report.exchanges
        losses = [ord(name) / 100 * (ROSTER.index(name) + 1) for name in ROSTER]
        assert exchange.metrics["loss"] == pytest.approx(sum(losses) / 36, abs=1e-5)


def test_no_plain_value_and_no_count_reaches_the_server() -> None:
    algorithms = _algorithms()
    wire = _wire(algorithms)
    reports = _run(algorithms, wire, rounds=1)
    planted = {_update(name, 1)[0, 0].numpy().tobytes() for name in ROSTER}
    for step, reply in wire.heard:
        tensors = [value for one in reply.payload.values() for value in one.tree.values()]
        raw = b"".join(value.numpy().tobytes() for value in tensors)
        assert not any(value in raw for value in planted)
        if step == "train":
            assert list(reply.payload) == [MASKED]
            words = reply.payload[MASKED].tree["words"].numpy().view(np.uint32)
            assert len(words) == 28 + 3
            # A small integer would be a count, or a value of a plain vector.
            assert np.abs(words.view(np.int32).astype(np.int64)).mean() > 2**28
    (exchange,) = reports[1].exchanges
    assert all(metrics == {} for metrics in exchange.clients.values())
    assert exchange.bytes_up > 8 * 4 * 31


@pytest.mark.parametrize("step", ["advert", "shares", "inbox", "train"])
@pytest.mark.parametrize("gone", ["a", "ch"])
def test_whoever_stops_before_its_vector_is_left_out(step: str, gone: str) -> None:
    algorithms = _algorithms()
    wire = _wire(algorithms, *((step, name) for name in gone))
    report = _run(algorithms, wire, rounds=1)[-1]
    there = [name for name in ROSTER if name not in gone]
    want = _weighted(there, 1)
    assert torch.allclose(report.position.server["adapter"]["w"], want, atol=4 * _tolerance(8))
    (exchange,) = report.exchanges
    assert sorted(failure.client for failure in exchange.failures) == sorted(gone)


@pytest.mark.parametrize("step", ["signature", "opening"])
def test_whoever_stops_after_its_vector_is_summed(step: str) -> None:
    algorithms = _algorithms()
    report = _run(algorithms, _wire(algorithms, (step, "a"), (step, "h")), rounds=1)[-1]
    want = _weighted(ROSTER, 1)
    assert torch.allclose(report.position.server["adapter"]["w"], want, atol=4 * _tolerance(8))


def _long(length: object) -> Callable[[Tree], Tree]:
    return lambda tree: {**tree, "length": torch.tensor(length)}


def _noise(tree: Tree) -> Tree:
    return {**tree, "bytes": torch.randint(0, 256, tree["bytes"].shape).byte()}


WRONG = [_long(-1), _long(10**9), _long(0), _long([1, 2]), _long(float("nan")), _noise,
         lambda tree: {**tree, "bytes": tree["bytes"].float()}, lambda tree: {}]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("step", ["advert", "shares", "signature", "opening"])
def test_what_is_no_message_is_its_clients_failure_alone(
    step: str, wrong: Callable[[Tree], Tree]
) -> None:
    algorithms = _algorithms()
    wire = replace(_wire(algorithms), changed={(step, "c"): wrong})
    report = _run(algorithms, wire, rounds=1)[-1]
    left_out = step in ("advert", "shares")
    there = [name for name in ROSTER if name != "c" or not left_out]
    found = report.position.server["adapter"]["w"]
    assert torch.allclose(found, _weighted(there, 1), atol=4 * _tolerance(8))
    (exchange,) = report.exchanges
    assert [(one.client, one.kind) for one in exchange.failures] == [("c", PROTOCOL)]
    assert sorted(exchange.folded) == there
    assert exchange.closed == ()


def test_wrong_shares_of_one_client_do_not_keep_a_sum_closed() -> None:
    def flipped(tree: Tree) -> Tree:
        raw = tree["bytes"].clone()
        raw[60] ^= 1
        return {**tree, "bytes": raw}

    algorithms = _algorithms()
    wire = replace(_wire(algorithms), changed={("opening", "c"): flipped})
    report = _run(algorithms, wire, rounds=1)[-1]
    found = report.position.server["adapter"]["w"]
    assert torch.allclose(found, _weighted(ROSTER, 1), atol=4 * _tolerance(8))
    (exchange,) = report.exchanges
    assert [(one.client, one.kind) for one in exchange.failures] == [("c", PROTOCOL)]
    assert "it opened a wrong share of a's secret" in exchange.failures[0].message


def test_who_was_left_out_keeps_no_key_once_another_sum_begins(tmp_path: Path) -> None:
    members = {name: Member(name, one.sign, VERIFY, Folder(tmp_path / name))
               for name, one in IDENTITIES.items()}  # fmt: skip
    algorithms = _algorithms(members=members)
    reports = _run(algorithms, _wire(algorithms, ("signature", "a"), ("opening", "a")), rounds=3)
    exchanges = [report.exchanges[0] for report in reports[1:]]
    assert all(exchange.folded.keys() == set(ROSTER) for exchange in exchanges)
    (left,) = tmp_path.rglob("*.state")
    assert left.is_relative_to(tmp_path / "a")
    assert int(left.stem) == exchanges[-1].folded["a"]


@pytest.mark.parametrize("step", ["advert", "shares", "train", "signature", "opening"])
def test_too_few_open_nothing(step: str) -> None:
    algorithms = _algorithms(floor=5)
    wire = _wire(algorithms, *((step, name) for name in "abcd"))
    with pytest.raises(QuorumError, match=r"secure sum needs|must"):
        _run(algorithms, wire, rounds=1)


@pytest.mark.parametrize("step", ["advert", "shares", "train", "signature"])
def test_a_sum_that_stays_closed_is_asked_for_again_under_fresh_keys(step: str) -> None:
    algorithms = _algorithms(floor=5)
    wire = replace(_wire(algorithms, *((step, name) for name in "abcd")), times=ATTEMPTS - 1)
    report = _run(algorithms, wire, rounds=1)[-1]
    want = _weighted(ROSTER, 1)
    assert torch.allclose(report.position.server["adapter"]["w"], want, atol=4 * _tolerance(8))
    (exchange,) = report.exchanges
    assert len(exchange.closed) == ATTEMPTS - 1
    assert exchange.failures == ()
    said = [reply.payload["message"].tree["bytes"] for at, reply in wire.heard if at == "advert"]
    # Behind the head of 40 bytes stand two public keys and a commitment.
    keys = {one[at : at + 32].numpy().tobytes() for one in said for at in (40, 72, 104)}
    assert len(said) == 8 * ATTEMPTS - (8 if step == "advert" else 0)
    assert len(keys) == 3 * len(said)
    masked = [reply.payload[MASKED].tree["words"] for at, reply in wire.heard if at == "train"]
    assert len({words.numpy().tobytes() for words in masked}) == len(masked)


def test_who_has_opened_a_sum_opens_no_other_attempt_of_it() -> None:
    """Four clients open, which is too few: they are in no sum that could be subtracted."""
    algorithms = _algorithms(floor=5)
    wire = replace(_wire(algorithms, *(("opening", name) for name in "abcd")), times=1)
    with pytest.raises(
        QuorumError, match=r"4 clients opened their share of a's secret, and 5 must"
    ):
        _run(algorithms, wire, rounds=1)
    opened = [reply.client for step, reply in wire.heard if step == "opening"]
    assert sorted(opened) == list("efgh")


def test_clients_open_the_sums_of_several_federations_and_each_once() -> None:
    members = _members()
    for run in ("one", "two"):
        algorithms = _algorithms(members=members, run=run)
        report = _run(algorithms, _wire(algorithms))[-1]
        assert set(report.exchanges[0].folded) == set(ROSTER)
    with pytest.raises(QuorumError, match="0 of 8 clients sent an advert"):
        _run(algorithms, _wire(algorithms))


def test_a_cohort_below_the_floor_is_told() -> None:
    algorithms = _algorithms(floor=5)
    with pytest.raises(QuorumError, match="round 1"):
        _run(algorithms, _wire(algorithms), rounds=1, cohort=3)


def test_a_client_that_was_sent_another_model_is_found_out() -> None:
    algorithms = _algorithms()
    base = algorithms["toy"].server

    def broadcast(state: dict[str, Tree], client: str) -> Payload:
        payload = base.broadcast(state, client)
        if client == "d":
            tree = {name: value + 1e-6 for name, value in payload["adapter"].tree.items()}
            payload["adapter"] = Channel(tree)
        return payload

    algorithms["toy"] = replace(algorithms["toy"], server=replace(base, broadcast=broadcast))
    before = torch.zeros(SHAPE)
    try:
        report = _run(algorithms, _wire(algorithms), rounds=1)[-1]
    except QuorumError:
        return
    moved = report.position.server["adapter"]["w"]
    assert not torch.allclose(moved, before + _update("d", 1), atol=0.05)


def test_a_root_stands_for_names_shapes_types_and_values() -> None:
    one: Payload = {"adapter": Channel({"w": torch.zeros(2, 3)})}
    others: list[Payload] = [
        {"adapter": Channel({"w": torch.zeros(3, 2)})},
        {"adapter": Channel({"v": torch.zeros(2, 3)})},
        {"head": Channel({"w": torch.zeros(2, 3)})},
        {"adapter": Channel({"w": torch.zeros(2, 3, dtype=torch.int32)})},
        {"adapter": Channel({"w": torch.tensor([[0.0, 0, 0], [0, 0, 1e-30]])})},
        {"adapter": Channel({"w": torch.zeros(2, 3), "s": torch.tensor(1.0)})},
        {},
    ]
    assert root_of(one) == root_of({"adapter": Channel({"w": torch.zeros(2, 3)})})
    assert len({root_of(one), *map(root_of, others)}) == 1 + len(others)
