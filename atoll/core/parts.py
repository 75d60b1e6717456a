"""The parts of an algorithm: records of pure functions, state in and state out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from atoll.core.asked import Context, Failure, Reply, Request, State
from atoll.core.payload import Payload
from atoll.core.sealed import Sealing
from atoll.tree import Tree

__all__ = ["Aggregator", "ClientWork", "Downlink", "Server", "Stage"]


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
    sealing: how single payloads are hidden from the server; None: they are not.
    Facts: needs_all (one missing client voids the exchange), needs_bound (reads a declared L2
    bound), weighs (sets the weights of means), dense_floats (reads values as they left the work),
    data_support (which values travel depends on the data), sums_only (the server sees only sums),
    group (of so many clients each, with sums_only; 0: one sum of all), never_groups (no group of
    clients can have a sum of its own), lossy (what arrives differs
    for good), blanks (no value of its channels travels).
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
    group: int = 0
    never_groups: bool = False
    lossy: bool = False
    blanks: bool = False
    sealing: Sealing | None = None


@dataclass(frozen=True)
class Aggregator:
    """A fold over replies that starts from shapes, so that an empty cohort is defined (zeros).

    `add` and `finish` may use up the state that they are given (a sum that grows in place is in
    memory once), never the payload: whoever folds goes on from what they return. What `finish`
    returns shares no memory with a payload, because a server may use it up.
    linear: the result depends on sums only.   weighted: it honours the weights of means.
    undivided: means are left sums, for the server to divide by a number that no client moves.
    least: the fewest replies that it can make something of; none at all still gives zeros.
    group: what is not linear looks at sums of so many replies (1: at each by itself).
    rule: what it makes of those sums' means.
    """

    name: str
    init: Callable[[Payload], State]
    add: Callable[[State, Payload], State]
    finish: Callable[[State], Payload]
    linear: bool = True
    weighted: bool = True
    undivided: bool = False
    least: int = 1
    group: int = 1
    rule: Aggregator | None = None


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
    apply: (context, state, aggregate) -> state; it may use up the aggregate, never the state.
    downlink: how less than the broadcast travels.   noised: channels in which noise hides
    clients, the server's or their own.
    ready: refuses, before the first round and only where the server is, what it cannot do without.
    response: rounds -> how far an update has moved the values 0, 1, … rounds later, in its own
    length; None: not in proportion to updates.
    """

    name: str
    init: Callable[[State], State]
    broadcast: Callable[[State, str], Payload]
    apply: Callable[[Context, State, Payload], State]
    downlink: Downlink | None = None
    noised: tuple[str, ...] = ()
    ready: Callable[[], None] = lambda: None
    response: Callable[[int], Sequence[float]] | None = None

    def sent(self, state: State, client: str, answered: int | None) -> Payload:
        """What travels to a client; `answered` is its exchange that was folded last."""
        if self.downlink is None:
            return self.broadcast(state, client)
        return self.downlink.sent(state, client, answered)
