"""One federated round, top to bottom.

    for each algorithm whose turn it is:
        ask      the server's broadcast goes to a cohort, through the runtime
        answer   clients work, and encode what they send        (at the client)
        fold     replies are decoded, checked whole, and added up in cohort order
        apply    the aggregate moves the server's state

The loop never sleeps, logs or writes: it yields one report a round, and its caller decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from atoll.core import (
    Algorithm,
    Context,
    Exchange,
    Failure,
    Federation,
    Payload,
    Position,
    Program,
    Reply,
    Report,
    Request,
    Runtime,
    Stage,
    Task,
    answers,
    attempted,
    begun,
    faded,
    in_order,
    metrics_of,
    payload_nbytes,
    question,
    validate,
)
from atoll.errors import PROTOCOL, ClosedError, PayloadError, ProtocolError, QuorumError

__all__ = ["answer", "decoded", "federate"]


def federate(
    program: Program, runtime: Runtime, federation: Federation, position: Position
) -> Iterator[Report]:
    """Run the rounds after `position`; round 0 holds what comes before the first adapter round.

    Raises:
        QuorumError: when fewer answered than `Federation` asks for.
    """
    for number in range(position.round + 1, federation.num_rounds + 1):
        exchanges: list[Exchange] = []
        for name in program.order(number):
            algorithm = program.algorithms[name]
            context = _context(algorithm, federation, runtime.roster, number, position.exchanges)
            task = question(name, algorithm, context, position, federation.staleness)
            ask = partial(_exchange, algorithm, runtime, federation)
            (aggregate, exchange), closed = attempted(task, ask)
            position = replace(
                position,
                server=algorithm.server.apply(context, position.server, aggregate),
                exchanges=position.exchanges + 1,
                folded={**position.folded, **exchange.folded},
            )
            exchanges.append(replace(exchange, closed=closed))
            del aggregate, task, ask  # as large as the model: none is kept beside the next one
        position = replace(position, round=number)
        yield Report(number, position, tuple(exchanges))


def _context(
    algorithm: Algorithm,
    federation: Federation,
    roster: tuple[str, ...],
    number: int,
    exchange: int,
) -> Context:
    """The moment of one exchange; a round has a cohort, and everything else asks all."""
    cohort = roster
    if algorithm.kind == "round":
        cohort = federation.cohort(number, exchange, roster)
    return Context(federation.seed, federation.run, number, exchange, cohort, len(roster))


def _exchange(
    algorithm: Algorithm, runtime: Runtime, federation: Federation, task: Task
) -> tuple[Payload, Exchange]:
    """Ask the cohort, and fold its replies in cohort order: early ones wait for their turn."""
    cohort = task.context.cohort
    like = algorithm.client.template(task.broadcast(cohort[0] if cohort else ""))
    sealed = begun(algorithm, runtime, task, like)
    state = sealed.start
    failures: list[Failure] = []
    clients: dict[str, Mapping[str, float]] = {}
    bytes_up, bytes_again, folded = 0, 0, dict[str, int]()
    for reply in in_order(sealed.replies, cohort):
        payload = decoded(algorithm, task.context, reply, like)
        if isinstance(reply, Reply):
            bytes_up += payload_nbytes(reply.payload)
            # What is lost on its way is no part of a round; all, in place of a step, is.
            whole = task.broadcast(reply.client) if algorithm.server.downlink else {}
            bytes_again += reply.again * payload_nbytes(whole)
        if isinstance(payload, Failure):
            failures.append(payload)
            continue
        asked = reply.late or task.context if isinstance(reply, Reply) else task.context
        fades = task.staleness ** (task.context.round - asked.round)
        state = sealed.add(state, reply.client, faded(payload, fades))
        clients[reply.client], folded[reply.client] = metrics_of(payload), asked.exchange
        del reply, payload  # before the next one comes
    _check_needs_all(algorithm, failures)
    _check_quorum(algorithm, federation, task, len(folded), failures)
    aggregate = sealed.recover(state, tuple(folded))
    failures.extend(sealed.failed(folded))
    for stage in reversed(algorithm.stages):
        if stage.decode_at == "sum":
            aggregate = stage.decode(task.context, aggregate, like)
    more_up, bytes_down = sealed.traffic()
    bytes_down += bytes_again + sum(payload_nbytes(task.travels(client)) for client in cohort)
    exchange = Exchange(
        task.algorithm, algorithm.kind, cohort, tuple(failures), metrics_of(aggregate),
        clients, bytes_up + more_up, bytes_down, folded,
    )  # fmt: skip
    return aggregate, exchange


def decoded(
    algorithm: Algorithm, context: Context, reply: Reply | Failure, like: Payload
) -> Payload | Failure:
    """Undo the stages on one reply and check it whole; a bad one counts as a failure."""
    if isinstance(reply, Failure):
        return reply
    payload, asked = reply.payload, reply.late or context
    try:
        for stage in reversed(algorithm.stages):
            if stage.decode_at == "reply" and not algorithm.sealing:
                payload = stage.decode(asked.at(reply.client), payload, like)
        validate(payload, algorithm.travelling(like))
    except PayloadError as error:
        return Failure(reply.client, "payload", str(error))
    return payload


def answer(algorithm: Algorithm, requests: Sequence[Request]) -> Iterator[Reply | Failure]:
    """The client's half of an exchange: work, then the stages' encoders, in order."""
    asked = {request.context.client: request for request in requests}
    for reply in answers(algorithm.client, requests):
        if isinstance(reply, Failure):
            yield reply
            continue
        try:
            yield _encode(algorithm.stages, asked[reply.client], reply)
        except PayloadError as error:
            kind = PROTOCOL if isinstance(error, ProtocolError) else "payload"
            yield Failure(reply.client, kind, str(error))


def _encode(stages: Sequence[Stage], request: Request, reply: Reply) -> Reply:
    # What other algorithms keep at the client stays as it is.
    payload, kept, state = reply.payload, request.state, {**request.state, **reply.state}
    for stage in stages:
        before = kept[stage.name] if stage.name in kept else stage.init(payload)
        payload, state[stage.name] = stage.encode(request.context, payload, before)
    for stage in stages:
        payload = stage.sealing.seal(request, payload) if stage.sealing else payload
    return Reply(reply.client, payload, {part: tree for part, tree in state.items() if tree})


def _check_needs_all(algorithm: Algorithm, failures: Sequence[Failure]) -> None:
    for stage in algorithm.stages:
        if stage.needs_all and failures:
            raise QuorumError(
                f"stage '{stage.name}' needs every client of the cohort, but "
                f"{failures[0].client} failed: {failures[0].message}"
            )


def _check_quorum(
    algorithm: Algorithm, federation: Federation, task: Task, answered: int,
    failures: Sequence[Failure],
) -> None:  # fmt: skip
    at, needed = task.context, federation.min_clients
    if answered >= (min(needed, len(at.cohort)) if algorithm.kind == "evaluation" else needed):
        return
    why = "".join(f"\n  {failure.client}: {failure.message}" for failure in failures[:5])
    told = (
        f"round {at.round} ({task.algorithm}): {answered} of {len(at.cohort)} clients answered, "
        f"federation.min_clients is {needed}{why}"
    )
    raise ClosedError(told) if algorithm.sealing else QuorumError(told)
