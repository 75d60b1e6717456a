"""The loop over a toy model: order of folding, bytes, quorum, Program order, what goes on."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
import torch

from atoll.aggregators import krum, mean
from atoll.core import (
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
    Server,
    Stage,
    State,
    Task,
    Tree,
)
from atoll.errors import PayloadError, QuorumError
from atoll.round import answer, federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.servers import average, momentum
from atoll.stages import by_examples, quantise

ROSTER = tuple("abcdefgh")
SIZE = 50
PLAN = Federation(seed=1, run="toy", num_rounds=3, clients_per_round=8)


def _payload(update: Tree, count: float, loss: float = 0.5) -> Payload:
    return {
        "update": Channel(update, "mean", weight="weight"),
        "weight": Channel({"value": torch.tensor(1.0)}, "sum"),
        "examples": Channel({"count": torch.tensor(float(count))}, "sum"),
        "metrics": Channel({"loss": torch.tensor(float(loss))}, "mean", weight="examples"),
    }


def _template(broadcast: Payload) -> Payload:
    return _payload({"w": broadcast["adapter"].tree["w"].to("meta")}, 0.0)


def _toy(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
    """Each client adds numbers of its own, whose sum depends on the order of adding."""
    for request in requests:
        name, context = request.context.client, request.context
        draw = torch.Generator().manual_seed(ord(name) + 1000 * context.round)
        w = request.payload["adapter"].tree["w"]
        update = torch.randn(SIZE, generator=draw) * 10 ** (ord(name) % 5) - 0.1 * w
        yield Reply(name, _payload({"w": update}, ROSTER.index(name) + 1, loss=ord(name)))


WORK = ClientWork("toy", _template, _toy, ("update", "weight", "examples", "metrics"))
TOY = Algorithm("toy", WORK, (by_examples(),), mean(), average())


def _start() -> Position:
    return Position({"adapter": {"w": torch.zeros(SIZE)}})


def _inprocess(algorithm: Algorithm = TOY, roster: tuple[str, ...] = ROSTER) -> InProcess:
    return InProcess(roster, {algorithm.name: algorithm}, memory_store())


def _program(*algorithms: Algorithm) -> Program:
    names = tuple(algorithm.name for algorithm in algorithms)
    parts = {algorithm.name: algorithm for algorithm in algorithms}
    return Program(parts, lambda number: names if number else ())


def _run(
    algorithm: Algorithm = TOY,
    *,
    runtime: Runtime | None = None,
    plan: Federation = PLAN,
) -> list[Report]:
    return list(federate(_program(algorithm), runtime or _inprocess(algorithm), plan, _start()))


def _w(report: Report) -> torch.Tensor:
    return report.position.server["adapter"]["w"]


@dataclass
class Unordered:
    """A runtime that answers in any order, or loses, repeats and invents answers."""

    inner: InProcess
    seed: int
    lost: tuple[str, ...] = ()
    calls: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    @property
    def roster(self) -> tuple[str, ...]:
        return self.inner.roster

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        self.calls += [(task.algorithm, tuple(clients)) for task in tasks]
        replies = [x for x in self.inner.call(tasks, clients) if x.client not in self.lost]
        random.Random(self.seed).shuffle(replies)
        yield from replies
        yield from replies[:1]
        yield Failure("stranger", "transport", "nobody asked")


def test_replies_are_folded_in_cohort_order() -> None:
    straight = _run()
    orders = set()
    for seed in range(8):
        runtime = Unordered(_inprocess(), seed)
        mixed = _run(runtime=runtime)
        assert torch.equal(_w(mixed[-1]), _w(straight[-1]))
        assert mixed[-1].exchanges == straight[-1].exchanges
        assert list(mixed[-1].exchanges[0].clients) == list(ROSTER)
        orders.add(tuple(x.client for x in runtime.call([_task()], ROSTER)))
    assert len(orders) == 8


def test_the_order_of_adding_would_be_seen() -> None:
    """The toy's sums differ in their last digits; otherwise the test above could not fail."""
    updates = [
        (r.payload["update"].tree["w"], float(i + 1))
        for i, r in enumerate(_toy([_request(name) for name in ROSTER]))
        if isinstance(r, Reply)
    ]
    sums = []
    for ordered in (updates, updates[::-1]):
        total = torch.zeros(SIZE)
        for value, weight in ordered:
            total = torch.add(total, value, alpha=weight)
        sums.append(total)
    assert not torch.equal(*sums)


def _context(client: str = "") -> Context:
    return Context(1, "toy", 1, 0, ROSTER, len(ROSTER), client)


def _request(client: str) -> Request:
    return Request(_context(client), {"adapter": Channel(_start().server["adapter"])})


def _task() -> Task:
    return Task("toy", _context(), lambda client: average().broadcast(_start().server, client), {})


def test_an_answer_that_never_comes_is_a_failure_and_holds_nobody_up() -> None:
    reports = _run(runtime=Unordered(_inprocess(), 0, lost=("c", "h")))
    exchange = reports[-1].exchanges[0]
    assert exchange.failures == tuple(
        Failure(name, "lost", "the runtime brought no answer") for name in ("c", "h")
    )
    assert list(exchange.clients) == list("abdefg")
    assert set(reports[-1].position.folded) == set("abdefg")


def test_bytes_are_counted_both_ways() -> None:
    exchange = _run()[-1].exchanges[0]
    assert exchange.bytes_down == 8 * SIZE * 4
    assert exchange.bytes_up == 8 * (SIZE * 4 + 3 * 4)
    packed = replace(TOY, stages=(*TOY.stages, quantise(dtype="int8")))
    exchange = _run(packed)[-1].exchanges[0]
    assert exchange.bytes_up == 8 * (SIZE * 1 + 4 + 3 * 4)


def test_what_a_bad_reply_sent_is_counted_too() -> None:
    def poisoned(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for reply in _toy(requests):
            assert isinstance(reply, Reply)
            bad = _payload({"w": torch.full((SIZE,), torch.nan)}, 1.0)
            yield replace(reply, payload=bad) if reply.client == "b" else reply

    algorithm = replace(TOY, client=replace(WORK, work=poisoned))
    exchange = _run(algorithm)[-1].exchanges[0]
    assert exchange.bytes_up == 8 * (SIZE * 4 + 3 * 4)
    assert [(f.client, f.kind) for f in exchange.failures] == [("b", "payload")]


def test_metrics_are_the_weighted_mean_and_each_clients_own() -> None:
    exchange = _run()[-1].exchanges[0]
    weights = range(1, 9)
    expected = sum(w * ord(name) for w, name in zip(weights, ROSTER, strict=True)) / sum(weights)
    assert exchange.metrics == {"loss": pytest.approx(expected, rel=1e-6)}
    assert exchange.clients["c"] == {"loss": float(ord("c"))}


def _silent(kept: int) -> Algorithm:
    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for number, reply in enumerate(_toy(requests)):
            yield reply if number < kept else Failure(reply.client, "transport", f"line {number}")

    return replace(TOY, client=replace(WORK, work=work))


def test_too_few_answers() -> None:
    with pytest.raises(QuorumError) as caught:
        _run(_silent(2), plan=replace(PLAN, min_clients=3))
    assert str(caught.value) == (
        "round 1 (toy): 2 of 8 clients answered, federation.min_clients is 3\n"
        "  c: line 2\n  d: line 3\n  e: line 4\n  f: line 5\n  g: line 6"
    )
    assert len(_run(_silent(3), plan=replace(PLAN, min_clients=3))) == 4


def test_who_did_not_answer_is_told_before_an_aggregator_misses_them() -> None:
    rule = krum(byzantine=1)
    silent = replace(_silent(4), aggregator=rule, stages=())
    with pytest.raises(QuorumError, match=r"4 of 8 clients answered.* is 5\n  e: line 4"):
        _run(silent, plan=replace(PLAN, min_clients=5))
    with pytest.raises(QuorumError, match="aggregator 'krum' needs 5 updates, and 4 came"):
        _run(silent, plan=PLAN)
    assert len(_run(replace(_silent(5), aggregator=rule, stages=()), plan=PLAN)) == 4


@pytest.mark.parametrize("kind", ["round", "exchange"])
def test_a_small_cohort_does_not_lower_the_quorum(kind: Literal["round", "exchange"]) -> None:
    """Two clients, of a cohort or of all that there are."""
    plan = replace(PLAN, clients_per_round=2, min_clients=3)
    algorithm = replace(TOY, kind=kind)
    roster = ROSTER if kind == "round" else ROSTER[:2]
    with pytest.raises(QuorumError, match=r"2 of 2 clients answered, federation\.min_clients is 3"):
        _run(algorithm, runtime=_inprocess(algorithm, roster), plan=plan)
    assert len(_run(algorithm, plan=replace(plan, min_clients=2))) == 4


def test_an_evaluation_needs_no_more_answers_than_there_are_clients() -> None:
    plan, algorithm = replace(PLAN, min_clients=3), replace(TOY, kind="evaluation")
    assert len(_run(algorithm, runtime=_inprocess(algorithm, ROSTER[:2]), plan=plan)) == 4
    with pytest.raises(QuorumError, match="2 of 8 clients answered"):
        _run(replace(_silent(2), kind="evaluation"), plan=plan)


def test_cohorts_are_drawn_anew_in_roster_order() -> None:
    plan = replace(PLAN, num_rounds=40, clients_per_round=3)
    cohorts = [report.exchanges[0].cohort for report in _run(plan=plan)[1:]]
    assert all(len(set(cohort)) == 3 and cohort == tuple(sorted(cohort)) for cohort in cohorts)
    assert len(set(cohorts)) > 20
    counts = [sum(name in cohort for cohort in cohorts) for name in ROSTER]
    assert min(counts) >= 5
    again = [report.exchanges[0].cohort for report in _run(plan=plan)[1:]]
    assert again == cohorts
    other = [x.exchanges[0].cohort for x in _run(plan=replace(plan, run="other"))[1:]]
    assert other != cohorts


def test_statistics_ask_everyone() -> None:
    plan = replace(PLAN, clients_per_round=2)
    for kind in ("exchange", "evaluation"):
        reports = _run(replace(TOY, kind=kind), plan=plan)
        assert reports[-1].exchanges[0].cohort == ROSTER
        assert reports[-1].exchanges[0].kind == kind


def test_algorithms_take_turns_in_the_programs_order() -> None:
    first, second = TOY, replace(TOY, name="other", kind="exchange")
    orders = {0: ("other",), 1: ("toy", "other"), 2: ("other", "toy", "other"), 3: ()}
    program = Program({"toy": first, "other": second}, lambda number: orders[number])
    runtime = Unordered(InProcess(ROSTER, program.algorithms, memory_store()), 0)
    reports = list(federate(program, runtime, replace(PLAN, clients_per_round=3), _start()))
    assert [tuple(x.algorithm for x in r.exchanges) for r in reports] == list(orders.values())
    assert [name for name, _ in runtime.calls] == [n for names in orders.values() for n in names]
    assert [report.position.exchanges for report in reports] == [1, 3, 6, 6]
    assert reports[3].position.server is reports[2].position.server
    # One round has one cohort, however many questions it asks.
    assert {len(clients) for name, clients in runtime.calls if name == "toy"} == {3}


def test_each_question_has_its_own_number_and_the_same_state_to_all() -> None:
    seen: list[tuple[int, int, str]] = []
    sent: list[torch.Tensor] = []

    def look(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            context = request.context
            seen.append((context.round, context.exchange, context.client))
            sent.append(request.payload["adapter"].tree["w"])
        return _toy(requests)

    algorithm = replace(TOY, client=replace(WORK, work=look))
    _run(algorithm)
    assert seen == [(r, r - 1, name) for r in (1, 2, 3) for name in ROSTER]
    assert all(torch.equal(sent[0], w) for w in sent[:8])
    assert not torch.equal(sent[0], sent[8])


def test_a_position_goes_on_where_it_stands() -> None:
    whole = _run()
    for report in whole[:-1]:
        rest = list(federate(_program(TOY), _inprocess(), PLAN, report.position))
        assert [x.round for x in rest] == list(range(report.round + 1, 4))
        assert torch.equal(_w(rest[-1]), _w(whole[-1]))
    assert list(federate(_program(TOY), _inprocess(), PLAN, whole[-1].position)) == []


def test_the_loop_waits_for_its_caller() -> None:
    runtime = Unordered(_inprocess(), 0)
    reports = federate(_program(TOY), runtime, PLAN, _start())
    assert runtime.calls == []
    next(reports)
    next(reports)
    assert len(runtime.calls) == 1


def _stage(name: str, log: list[str], **facts: object) -> Stage:
    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        log.append(f"encode {name}")
        return payload, {"count": state.get("count", torch.zeros(())) + 1}

    def decode(context: Context, payload: Payload, like: Payload) -> Payload:
        log.append(f"decode {name}{' sum' if context.client == '' else ''}")
        return payload

    return Stage(name, ("update",), encode, decode, **facts)  # type: ignore[arg-type]


def test_stages_are_undone_in_reverse() -> None:
    log: list[str] = []
    stages = (by_examples(), _stage("x", log), _stage("s", log, decode_at="sum"), _stage("y", log))
    _run(replace(TOY, stages=stages), runtime=None, plan=replace(PLAN, num_rounds=1))
    one = ["encode x", "encode s", "encode y", "decode y", "decode x"]
    assert log == one * 8 + ["decode s sum"]


def test_answer_keeps_the_state_of_every_owner() -> None:
    log: list[str] = []
    algorithm = replace(TOY, stages=(by_examples(), _stage("x", log)))
    kept: State = {"x": {"count": torch.tensor(4.0)}, "scaffold": {"w": torch.ones(2)}}
    (reply,) = answer(algorithm, [replace(_request("a"), state=kept)])
    assert isinstance(reply, Reply)
    assert reply.state.keys() == {"x", "scaffold"}
    assert float(reply.state["x"]["count"]) == 5
    assert reply.state["scaffold"] is kept["scaffold"]
    assert float(kept["x"]["count"]) == 4


def test_a_stage_that_cannot_encode_fails_its_client_alone() -> None:
    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        if context.client == "b":
            raise PayloadError("cannot be packed")
        return payload, state

    strict = Stage("strict", ("update",), encode)
    replies = list(answer(replace(TOY, stages=(strict,)), [_request(n) for n in "abc"]))
    assert [type(reply) for reply in replies] == [Reply, Failure, Reply]
    assert replies[1] == Failure("b", "payload", "cannot be packed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"update": Channel({"v": torch.zeros(SIZE)}, weight="weight")}, "tensors of channel"),
        ({"update": Channel({"w": torch.zeros(3)}, weight="weight")}, "float32[3]"),
        ({"update": Channel({"w": torch.zeros(SIZE).double()}, weight="weight")}, "float64"),
        ({"update": Channel({"w": torch.zeros(SIZE)}, "sum")}, "asks for sum"),
        ({"more": Channel({})}, "channels do not match"),
        ({"weight": Channel({"value": torch.tensor(-1.0)}, "sum")}, "not negative"),
    ],
)  # fmt: skip
def test_an_odd_payload_is_left_out(change: Mapping[str, Channel], message: str) -> None:
    def odd(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for reply in _toy(requests):
            assert isinstance(reply, Reply)
            bad = {**reply.payload, **change}
            yield replace(reply, payload=bad) if reply.client == "c" else reply

    algorithm = replace(TOY, stages=(), client=replace(WORK, work=odd))
    exchange = _run(algorithm)[-1].exchanges[0]
    (failure,) = exchange.failures
    assert (failure.client, failure.kind) == ("c", "payload")
    assert message in failure.message
    assert "c" not in exchange.clients


@pytest.mark.parametrize("make", [average, momentum])
def test_no_state_is_kept_beside_that_of_now(make: Callable[[], Server]) -> None:
    """A state is as large as the model: one that was left is gone as soon as its report is."""
    algorithm = replace(TOY, server=make())
    start = Position(algorithm.server.init(_start().server))
    before = weakref.ref(start.server["adapter"]["w"])
    reports = federate(_program(algorithm), _inprocess(algorithm), PLAN, start)
    del start
    for report in reports:
        now = weakref.ref(_w(report))
        assert report.round == 0 or before() is None
        before = now
        del report
