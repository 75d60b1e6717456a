"""The server of one exchange: it passes on what clients say, adds up, and opens the sum.

    gather      ADVERTs        -> ADVERTS for all
    route       SHARES         -> an INBOX for each
    absorb      a MASKED       one client's vector, as it comes
    close                      -> SURVIVORS for all that sent one
    witness     SIGNATUREs     -> SIGNATURES for all of them
    finish      OPENINGs       -> the sum

A message that is not as agreed is that of a client that dropped out: the reasons are returned by
name. Each step follows from the bytes that came, so that a server which kept them and starts again
repeats what it said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from atoll.errors import ProtocolError
from atoll.secagg.configuration import Configuration
from atoll.secagg.gathered import Refused, ServerState, enough, read_all
from atoll.secagg.keys import Verifier
from atoll.secagg.messages import Advert, Kind, read_each, read_one, write_each
from atoll.secagg.session import alike, begun, check_advert
from atoll.secagg.total import Total, unmasked

__all__ = ["absorb", "close", "finish", "gather", "route", "witness"]


def gather(
    configuration: Configuration, root: bytes, verify: Verifier, messages: Mapping[str, bytes]
) -> tuple[ServerState, bytes, Refused]:
    """Check adverts, and begin a session with those that are good.

    Raises:
        QuorumError: when too few are; also from the steps after this one.
    """

    def read(place: int, raw: bytes) -> Advert:
        advert = Advert.from_bytes(bytes(read_one(Kind.ADVERT, configuration, raw)))
        check_advert(configuration, place, advert, verify)
        return advert

    adverts, refused = read_all(configuration, messages, read)
    for place in alike(adverts):
        refused[configuration.cohort[place]] = "its advert has a key that is not its alone"
        del adverts[place]
    enough(configuration, len(adverts), "sent an advert", refused)
    session = begun(configuration, adverts)
    packed = {place: advert.to_bytes() for place, advert in adverts.items()}
    state = ServerState(session, root, verify)
    return state, write_each(Kind.ADVERTS, configuration, packed), refused


def route(
    state: ServerState, messages: Mapping[str, bytes]
) -> tuple[ServerState, dict[str, bytes], Refused]:
    """Turn what each client sealed for its neighbours into what each finds from them."""
    configuration, ring = state.configuration, state.session.ring

    def read(place: int, raw: bytes) -> dict[int, bytes]:
        sealed = read_each(Kind.SHARES, configuration, raw)
        if place not in state.session.adverts or tuple(sealed) != ring.near(place):
            raise ProtocolError("shares are not for this client's neighbours; nothing was used")
        return sealed

    sealed, refused = read_all(configuration, messages, read)
    enough(configuration, len(sealed), "shared their secrets", refused)
    inboxes = {
        configuration.cohort[place]: write_each(
            Kind.INBOX, configuration,
            {source: sealed[source][place] for source in ring.near(place) if source in sealed},
        )
        for place in sealed
    }  # fmt: skip
    total = np.zeros(configuration.size, np.uint32)
    return replace(state, sharing=frozenset(sealed), total=total), inboxes, refused


def absorb(state: ServerState, name: str, message: bytes | memoryview) -> ServerState:
    """Add one client's masked vector, in any order.

    Raises:
        ProtocolError: when it is not as agreed, or the client's second; nothing was added.
    """
    place = state.configuration.place(name)
    if place not in state.sharing or place in state.alive:
        raise ProtocolError(f"{name} has shared no secrets, or was added before; it counts once")
    words = np.frombuffer(read_one(Kind.MASKED, state.configuration, message), "<u4")
    np.add(state.total, words, out=state.total)
    return replace(state, alive=state.alive | {place})


def close(state: ServerState) -> bytes:
    """Nobody else is added: who is."""
    enough(state.configuration, len(state.alive), "sent a masked vector", {})
    return state.survivors.to_bytes(state.configuration)


def witness(state: ServerState, messages: Mapping[str, bytes]) -> tuple[bytes, Refused]:
    """As many of the survivors' signatures as each must see, the first by place."""
    configuration = state.configuration
    statement = state.session.statement(state.survivors, state.root)

    def read(place: int, raw: bytes) -> bytes:
        signature = bytes(read_one(Kind.SIGNATURE, configuration, raw))
        if place not in state.alive or not state.verify(
            configuration.cohort[place], statement, signature
        ):
            raise ProtocolError("a signature that is not over these survivors and this model")
        return signature

    signatures, refused = read_all(configuration, messages, read)
    enough(configuration, len(signatures), "confirmed who is summed", refused)
    first = dict(sorted(signatures.items())[: configuration.signers])
    return write_each(Kind.SIGNATURES, configuration, first), refused


def finish(state: ServerState, messages: Mapping[str, bytes]) -> tuple[Total, Refused]:
    """Take all masks off the sum; who opened a wrong share is among the refused.

    Raises:
        ProtocolError: when shares do not give what the adverts promised; nothing is released.
        QuorumError: when too few clients opened theirs.
    """
    configuration, ring = state.configuration, state.session.ring

    def read(place: int, raw: bytes) -> dict[int, bytes]:
        opened = read_each(Kind.OPENING, configuration, raw)
        if place not in state.alive or opened.keys() != {*ring.near(place), place} & state.sharing:
            raise ProtocolError("shares of others than this client's neighbours; nothing was used")
        return opened

    openings, refused = read_all(configuration, messages, read)
    total, wrong = unmasked(state, openings)
    for holder, owner in wrong.items():
        why = f"it opened a wrong share of {configuration.cohort[owner]}'s secret"
        refused[configuration.cohort[holder]] = f"{why}, or was given one; the others were enough"
    return total, refused
