"""The parts of an algorithm: records of pure functions, state in and state out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from atoll.core.payload import Payload
from atoll.tree import Tree

__all__ = [
    "Aggregator",
    "ClientWork",
    "Context",
    "Downlink",
    "Failure",
    "Reply",
    "Request",
    "Server",
    "Stage",
    "State",
]

State = dict[str, Tree]
"""Named parts. A server's: adapter, head, statistics, moments, …; a client's: one per owner."""


@dataclass(frozen=True)
class Context:
    """Where and when: the only ambient information.

    exchange counts every question to clients since the run began (a round may hold several);
    client is a roster name ("" on the server); cohort holds all clients that were asked.
    """

    seed: int
    run: str
    round: int
    exchange: int
    cohort: tuple[str, ...]
    population: int
    client: str = ""

    @property
    def sampling_rate(self) -> float:
        """The share of the population that was asked."""
        return len(self.cohort) / self.population

    def at(self, client: str) -> Context:
        """The same moment at one client."""
        return replace(self, client=client)


@dataclass(frozen=True)
class Request:
    """What one client is asked; `state` is the client's own and was never sent."""

    context: Context
    payload: Payload
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One client's answer; `state` stays with the client and is never sent.

    late: the moment that was asked about, where the answer came after its round was over.
    """

    client: str
    payload: Payload
    state: State = field(default_factory=dict)
    late: Context | None = None


@dataclass(frozen=True)
class Failure:
    """Why one client has no answer; the round goes on without it."""

    client: str
    kind: str
    message: str


@dataclass(frozen=True)
class ClientWork:
    """Local work for one or many clients at once.

    template: broadcast -> the shapes of a reply (values are not read; meta tensors will do).
    work: answers each request with a Reply or a Failure, in any order.
    kept: channels whose sender goes on from the exact values, so that the server needs them too.
    rescaled: channels that the server multiplies by a number from the clients, so that a bound on
        what is sent is none on what is applied.
    bounded: channels whose L2 norm the work bounds itself, by a number of the broadcast.
    """

    name: str
    template: Callable[[Payload], Payload]
    work: Callable[[Sequence[Request]], Iterator[Reply | Failure]]
    channels: tuple[str, ...] = ("update", "examples", "metrics")
    kept: tuple[str, ...] = ()
    rescaled: tuple[str, ...] = ()
    bounded: tuple[str, ...] = ()


def _no_state(payload: Payload) -> Tree:
    return {}


def _as_it_is(context: Context, payload: Payload, like: Payload) -> Payload:
    return payload


@dataclass(frozen=True)
class Stage:
    """A payload step with a client half and a server half.

    channels: those that it treats.        init: a client's first state of this stage.
    encode: (context, payload, state) -> (payload, state), at the client.
    decode: (context, payload, like) -> payload, at the server, on each reply or on the sum;
        `like` is the work's template, which tells the shapes to come back to.
    bound: the L2 bound it leaves on its channels, from the one it met (None: no bound).
    Facts: needs_all (one missing client voids the exchange), needs_bound (reads a declared L2
    bound), weighs (sets the weights of means), dense_floats (reads values as they left the work),
    data_support (which values travel depends on the data), sums_only (the server sees only sums),
    lossy (what arrives differs for good), blanks (no value of its channels travels).
    """

    name: str
    channels: tuple[str, ...]
    encode: Callable[[Context, Payload, Tree], tuple[Payload, Tree]]
    decode: Callable[[Context, Payload, Payload], Payload] = _as_it_is
    decode_at: Literal["reply", "sum"] = "reply"
    init: Callable[[Payload], Tree] = _no_state
    bound: Callable[[float | None], float | None] = lambda met: met
    packs: bool = False
    needs_all: bool = False
    needs_bound: bool = False
    weighs: Literal["uniform", "examples"] | None = None
    dense_floats: bool = False
    data_support: bool = False
    sums_only: bool = False
    lossy: bool = False
    blanks: bool = False


@dataclass(frozen=True)
class Aggregator:
    """A fold over replies that starts from shapes, so that an empty cohort is defined (zeros).

    `add` and `finish` may use up the state that they are given (a sum that grows in place is in
    memory once), never the payload: whoever folds goes on from what they return.
    linear: the result depends on sums only.   weighted: it honours the weights of means.
    undivided: means are left sums, for the server to divide by a number that no client moves.
    """

    name: str
    init: Callable[[Payload], State]
    add: Callable[[State, Payload], State]
    finish: Callable[[State], Payload]
    linear: bool = True
    weighted: bool = True
    undivided: bool = False


@dataclass(frozen=True)
class Downlink:
    """How a broadcast travels to a client that has an earlier one.

    sent: (state, client, the exchange that it answered last) -> what travels.
    received: (context, what travelled, the adapter that the client has) -> the broadcast; raises
        HeldError where another one would be needed.
    """

    sent: Callable[[State, str, int | None], Payload]
    received: Callable[[Context, Payload, Tree | None], Payload]


@dataclass(frozen=True)
class Server:
    """The server's state: how it starts, what each client receives, how an aggregate moves it.

    init: adds the parts that this server keeps (moments) to a state that others share.
    downlink: how less than the broadcast travels.   noised: channels that it adds noise to.
    """

    name: str
    init: Callable[[State], State]
    broadcast: Callable[[State, str], Payload]
    apply: Callable[[Context, State, Payload], State]
    downlink: Downlink | None = None
    noised: tuple[str, ...] = ()

    def sent(self, state: State, client: str, answered: int | None) -> Payload:
        """What travels to a client; `answered` is its exchange that was folded last."""
        if self.downlink is None:
            return self.broadcast(state, client)
        return self.downlink.sent(state, client, answered)
