"""Encrypted sums in the loop: the same aggregate, whoever stops, and nothing in the open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from atoll.aggregators import mean
from atoll.ckks import Held, Silo
from atoll.core import (
    ATTEMPTS,
    Algorithm,
    Channel,
    ClientWork,
    Context,
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
)
from atoll.errors import CompositionError, ProtocolError, QuorumError
from atoll.protection.encrypted import Encrypting, Holding, encryption
from atoll.protection.encrypted_exchange import CIPHERTEXTS, ENCRYPTED, MARK_OF
from atoll.protection.outside import Outside
from atoll.protection.speaking import SIDE, SPEAKING, STEPS, question_of, speaking
from atoll.protection.summed import Summed
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.secagg import Identity, roster_verifier
from atoll.servers import average
from atoll.stages import by_examples

pytest.importorskip("tenseal")

ROSTER = tuple("abcd")
SHAPE = (3, 7)
RANGES = {"update": 4.0, "weight": 8.0, "examples": 8.0, "metrics": 10.0}
IDENTITIES = {name: Identity.new() for name in ROSTER}
VERIFY = roster_verifier({name: one.public for name, one in IDENTITIES.items()})


def _payload(update: torch.Tensor, count: float, loss: float) -> Payload:
    return {
        "update": Channel({"w": update}, "mean", weight="weight"),
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
        yield Reply(name, _payload(_update(name, number), ROSTER.index(name) + 1, ord(name) / 100))


WORK = ClientWork(
    "toy", lambda broadcast: _payload(torch.zeros(SHAPE), 0, 0), _toy,
    ("update", "weight", "examples", "metrics"),
)  # fmt: skip


def _algorithms(*, lenient: bool = False, floor: int = 3) -> dict[str, Algorithm]:
    silos = {name: Silo(name, one.sign, VERIFY, Held()) for name, one in IDENTITIES.items()}
    summed = Summed(_payload(torch.zeros(SHAPE), 0, 0), RANGES, undivided=False, most=4)
    encrypting = Encrypting(summed, "a", floor, lenient)
    holding = Holding(encrypting, silos.__getitem__, Outside(print, 1))
    stages = (by_examples(), encryption(encrypting, holding, VERIFY))
    return {
        "toy": Algorithm("toy", WORK, stages, mean(), average()),
        SPEAKING: speaking(holding.says),
    }


Change = Callable[[str, Reply], Reply]


def _unchanged(step: str, reply: Reply) -> Reply:
    return reply


@dataclass
class Wire:
    """A runtime that hears all, changes what it likes, and loses what it is told to."""

    inner: InProcess
    lost: frozenset[tuple[str, str]] = frozenset()
    change: Change = _unchanged
    heard: list[tuple[str, Reply]] = field(default_factory=list)

    @property
    def roster(self) -> tuple[str, ...]:
        return self.inner.roster

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        for task in tasks:
            step = "train" if task.algorithm == "toy" else STEPS[task.context.exchange // SIDE]
            reached = [client for client in clients if (step, client) not in self.lost]
            for reply in self.inner.call([task], reached):
                if isinstance(reply, Reply):
                    self.heard.append((step, reply))
                    yield self.change(step, reply)
                else:
                    yield reply
            for client in set(clients) - set(reached):
                yield Failure(client, "absent", f"lost at {step}")


def _wire(
    *lost: tuple[str, str], change: Change = _unchanged, lenient: bool = False, floor: int = 3
) -> Wire:
    algorithms = _algorithms(lenient=lenient, floor=floor)
    return Wire(InProcess(ROSTER, algorithms, memory_store()), frozenset(lost), change)


def _run(runtime: Wire, rounds: int = 1, cohort: int = 4, least: int = 1) -> list[Report]:
    plan = Federation(1, "toy", rounds, cohort, min_clients=least)
    start = Position({"adapter": {"w": torch.zeros(SHAPE)}})
    program = Program(runtime.inner.algorithms, lambda number: ("toy",) if number else ())
    bound: Runtime = runtime
    return list(federate(program, bound, plan, start))


def _weighted(names: Sequence[str], number: int) -> torch.Tensor:
    weights = [ROSTER.index(name) + 1.0 for name in names]
    parts = [w * _update(name, number) for name, w in zip(names, weights, strict=True)]
    return sum(parts, torch.zeros(SHAPE)) / sum(weights)


def _moved(report: Report) -> torch.Tensor:
    return report.position.server["adapter"]["w"]


# Noise of 2^-24 of the range (4 x 8, a power of 2 above it) over the least weight.
CLOSE = 64 * 6 * 2.0**-24 / 6


def test_the_aggregate_is_the_mean_that_plain_replies_give() -> None:
    reports = _run(_wire(), rounds=2)
    want = torch.zeros(SHAPE)
    for report in reports[1:]:
        want += _weighted(ROSTER, report.round)
        assert torch.allclose(_moved(report), want, atol=2 * CLOSE)
        (exchange,) = report.exchanges
        losses = [ord(name) / 100 * (ROSTER.index(name) + 1) for name in ROSTER]
        assert exchange.metrics["loss"] == pytest.approx(sum(losses) / 10, abs=1e-4)
        # Four ciphertexts up, and one down to the holder.
        assert exchange.bytes_up > 4 * 57_344
        assert exchange.bytes_down > 57_344 + 4 * 100_000


def test_no_plain_value_reaches_the_server_before_the_sum() -> None:
    wire = _wire()
    _run(wire)
    planted = {_update(name, 1)[0, 0].numpy().tobytes() for name in ROSTER}
    trained = [reply for step, reply in wire.heard if step == "train"]
    assert len(trained) == 4
    for reply in trained:
        assert list(reply.payload) == [ENCRYPTED]
        raw = reply.payload[ENCRYPTED].tree[CIPHERTEXTS].numpy()
        assert not any(value in raw.tobytes() for value in planted)
        # Bytes of numbers modulo a prime: the lower six of seven are uniform.
        low = raw.reshape(-1, 7)[:, :6]
        counts = np.bincount(low.reshape(-1), minlength=256)
        expected = low.size / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * (2 * 255) ** 0.5


@pytest.mark.parametrize("step", ["inbox", "train", "answer"])
@pytest.mark.parametrize("gone", ["a", "c"])
def test_whoever_stops_is_left_out_the_holder_among_them(step: str, gone: str) -> None:
    report = _run(_wire((step, gone)))[-1]
    there = [name for name in ROSTER if name != gone]
    assert torch.allclose(_moved(report), _weighted(there, 1), atol=CLOSE)
    (exchange,) = report.exchanges
    assert [failure.client for failure in exchange.failures] == [gone]


def test_a_holder_outside_of_the_cohort_decrypts_its_sum() -> None:
    wire = _wire()
    plan = Federation(1, "toy", 1, 3, sample=lambda number, exchange, roster: ("b", "c", "d"))
    start = Position({"adapter": {"w": torch.zeros(SHAPE)}})
    program = Program(wire.inner.algorithms, lambda number: ("toy",) if number else ())
    report = list(federate(program, wire, plan, start))[-1]
    assert torch.allclose(_moved(report), _weighted("bcd", 1), atol=CLOSE)


def _flipped(tree: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    value = tree[name].clone()
    value[3] ^= 1
    return {**tree, name: value}


def _high(tree: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tree, CIPHERTEXTS: torch.full_like(tree[CIPHERTEXTS], 255)}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tree: _flipped(tree, CIPHERTEXTS), "not those that it signed"),
        (lambda tree: _flipped(tree, MARK_OF), "not those that it signed"),
        (_high, "beyond the modulus"),
        (lambda tree: {**tree, MARK_OF: tree[MARK_OF][:-1]}, "a mark has 95 bytes"),
        (lambda tree: {**tree, CIPHERTEXTS: tree[CIPHERTEXTS][:-7]}, "were agreed"),
        (lambda tree: {**tree, CIPHERTEXTS: tree[CIPHERTEXTS].double()}, "float64"),
        (lambda tree: {CIPHERTEXTS: tree[CIPHERTEXTS]}, "mark"),
    ],
)  # fmt: skip
def test_a_tampered_answer_is_a_failure_of_its_client(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], why: str
) -> None:
    def changed(step: str, reply: Reply) -> Reply:
        if step != "train" or reply.client != "c":
            return reply
        channel = reply.payload[ENCRYPTED]
        tree = change(dict(channel.tree))
        return replace(reply, payload={ENCRYPTED: channel.with_tree(tree)})

    report = _run(_wire(change=changed))[-1]
    (failure,) = report.exchanges[0].failures
    assert failure.client == "c"
    assert why in failure.message
    assert torch.allclose(_moved(report), _weighted("abd", 1), atol=CLOSE)


def _wrong(reply: Reply) -> Reply:
    channel = reply.payload["message"]
    tree = {**channel.tree, "bytes": channel.tree["bytes"].clone()}
    tree["bytes"][7] ^= 1
    return replace(reply, payload={"message": channel.with_tree(tree)})


def test_who_answers_a_challenge_wrongly_is_taken_out_of_the_sum() -> None:
    def changed(step: str, reply: Reply) -> Reply:
        return _wrong(reply) if (step, reply.client) == ("answer", "c") else reply

    wire = _wire(change=changed)
    report = _run(wire)[-1]
    assert torch.allclose(_moved(report), _weighted("abd", 1), atol=CLOSE)
    (exchange,) = report.exchanges
    (failure,) = exchange.failures
    assert (failure.client, failure.kind) == ("c", "protocol")
    assert "its answer is not that of the ciphertexts that it sent" in failure.message
    assert sorted(exchange.folded) == ["a", "b", "d"]
    # One sum more, one challenge more, and one decryption.
    steps = [step for step, _ in wire.heard]
    assert [steps.count(step) for step in ("challenge", "answer", "decrypt")] == [2, 7, 1]


def test_a_sum_is_asked_about_until_too_few_prove_it_or_three_times() -> None:
    with pytest.raises(QuorumError, match="2 clients answered"):
        _run(_wire(("answer", "c"), ("answer", "d")))
    asked = [0]

    def one_more(step: str, reply: Reply) -> Reply:
        asked[0] += step == "challenge"
        gone = step == "answer" and reply.client == "dcb"[(asked[0] - 1) % 3]
        return _wrong(reply) if gone else reply

    with pytest.raises(QuorumError, match="3 times, and each time another client did not prove"):
        _run(_wire(change=one_more, floor=2))
    assert asked == [3 * ATTEMPTS]
    with pytest.raises(QuorumError, match="a, who holds the key of this sum, does not answer"):
        _run(_wire(("challenge", "a")))


def test_a_client_that_started_again_has_nothing_to_prove() -> None:
    encrypting = Encrypting(
        Summed(_payload(torch.zeros(SHAPE), 0, 0), RANGES, undivided=False, most=4), "a", 3
    )
    silo = Silo("b", IDENTITIES["b"].sign, VERIFY, Held())
    holding = Holding(encrypting, {"b": silo}.__getitem__, Outside(print, 1))
    context = Context(1, "run", 1, 0, ROSTER, 4, "b")
    with pytest.raises(ProtocolError, match="b is asked about a sum that it sent nothing to"):
        holding.says(context, "answer", b"", 96)


def test_a_server_with_a_key_of_its_own_gets_nothing() -> None:
    wire = _wire()
    other = Silo("a", Identity.new().sign, VERIFY, Held())
    algorithms, inner = wire.inner.algorithms, wire.inner
    encrypting = Encrypting(
        Summed(_payload(torch.zeros(SHAPE), 0, 0), RANGES, undivided=False, most=4), "a", 3
    )

    class Swapping:
        """The server's own hands on what it sends: its key in place of the holder's."""

        roster = ROSTER

        def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
            def swapped(task: Task) -> Task:
                if task.algorithm != SPEAKING or task.context.exchange >= SIDE:
                    return task
                key = other.key(encrypting.agreed(task.context))
                return replace(task, broadcast=lambda client: question_of(key, 0))

            return inner.call([swapped(task) for task in tasks], clients)

    program = Program(algorithms, lambda number: ("toy",) if number else ())
    start = Position({"adapter": {"w": torch.zeros(SHAPE)}})
    with pytest.raises(QuorumError, match="not signed by a, who holds it"):
        list(federate(program, Swapping(), Federation(1, "toy", 1, 4), start))


def test_a_sum_that_stays_closed_is_asked_for_again_under_another_key() -> None:
    tried: list[str] = []

    def once(step: str, reply: Reply) -> Reply:
        if step == "decrypt":
            tried.append(step)
        if step != "decrypt" or len(tried) > 1:
            return reply
        channel = reply.payload["message"]
        return replace(reply, payload={"message": channel.with_tree(
            {**channel.tree, "length": torch.tensor(5)})})  # fmt: skip

    # What the holder has told once it does not tell again, to another attempt either.
    with pytest.raises(QuorumError, match="a decrypted sum has 5 bytes"):
        _run(_wire(change=once))
    wire = _wire(("key", "a"))
    with pytest.raises(QuorumError, match="a, who holds the key of this sum, does not answer"):
        _run(wire)


def test_too_few_are_not_decrypted_and_where_noise_hides_rounds_count_as_nobody() -> None:
    with pytest.raises(QuorumError, match="2 clients answered"):
        _run(_wire(("train", "c"), ("train", "d")))
    with pytest.raises(QuorumError, match="a cohort of 2"):
        _run(_wire(), cohort=2)
    report = _run(_wire(lenient=True), cohort=2, least=0)[-1]
    assert not _moved(report).any()
    assert {one.kind for one in report.exchanges[0].failures} == {"unasked"}


def test_updates_that_are_too_large_are_refused_when_the_run_is_built() -> None:
    like = _payload(torch.zeros(1).expand(2**21), 0, 0)
    encrypting = Encrypting(Summed(like, RANGES, undivided=False, most=4), "a", 3)
    with pytest.raises(CompositionError, match="2,097,152 values at most"):
        encrypting.check()
