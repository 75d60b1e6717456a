"""Cohorts of secure sums: their keys, and every state and message of an exchange on the way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from atoll.secagg import Channel, Configuration, Identity, Kind, Moment, Terms, Total, agree
from atoll.secagg.client import advertise, confirm, mask, share
from atoll.secagg.gathered import ServerState
from atoll.secagg.keys import Verifier, roster_verifier
from atoll.secagg.messages import Advert, Survivors, read_each, write_each, write_one
from atoll.secagg.server import absorb, finish, gather, route
from atoll.secagg.state import ClientState

__all__ = ["ROOT", "TRUSTING", "Cohort", "cohort", "configured", "inbox_of", "vector"]

ROOT = bytes(range(32))
TRUSTING = Terms(corrupt=0.0, dropping=0.0, floor=2)
"""For small cohorts that are looked at from all sides."""


def configured(
    clients: int, *, sizes: Sequence[int] = (3,), exchange: int = 7, terms: Terms = TRUSTING
) -> Configuration:
    """A cohort of client-0, client-1, … with channels a, b, … of these sizes, from -1 to 1."""
    names = [f"client-{number:03}" for number in range(clients)]
    channels = [
        Channel.fitted(chr(ord("a") + number), size, 1.0, clients)
        for number, size in enumerate(sizes)
    ]
    return agree(Moment("run", 3, exchange), names, channels, terms)


@dataclass(frozen=True)
class Cohort:
    """Clients that hold keys, and the steps of an exchange for all or some of them."""

    configuration: Configuration
    identities: Mapping[int, Identity]
    verify: Verifier

    def at(self, configuration: Configuration) -> Cohort:
        """The same clients in another exchange."""
        return replace(self, configuration=configuration)

    def advertised(
        self, seed: int | None = None
    ) -> tuple[dict[int, ClientState], dict[int, Advert]]:
        """seed: repeats an exchange bit for bit."""
        drawn = None if seed is None else np.random.default_rng(seed)
        entropy = drawn.bytes if drawn else os.urandom
        both = {
            place: advertise(self.configuration, name, self.identities[place].sign, entropy=entropy)
            for place, name in enumerate(self.configuration.cohort)
        }
        return {at: state for at, (state, _) in both.items()}, {
            at: a for at, (_, a) in both.items()
        }

    def shared(
        self, states: Mapping[int, ClientState], adverts: Mapping[int, Advert]
    ) -> tuple[dict[int, ClientState], dict[int, dict[int, bytes]]]:
        """States and what each sealed for its neighbours, of the clients that sent an advert."""
        both = {place: share(states[place], adverts, self.verify) for place in adverts}
        return {at: state for at, (state, _) in both.items()}, {
            at: s for at, (_, s) in both.items()
        }

    def masked(
        self,
        states: Mapping[int, ClientState],
        sealed: Mapping[int, Mapping[int, bytes]],
        words: Mapping[int, NDArray[np.int32]],
        root: bytes = ROOT,
    ) -> tuple[dict[int, ClientState], dict[int, NDArray[np.uint32]]]:
        """Of the clients in `sealed`, who are those that shared."""
        both = {
            place: mask(states[place], inbox_of(place, sealed), root, words[place].copy())
            for place in sealed
        }
        return {at: state for at, (state, _) in both.items()}, {
            at: v for at, (_, v) in both.items()
        }

    def signed(
        self, states: Mapping[int, ClientState], survivors: Survivors
    ) -> tuple[dict[int, ClientState], dict[int, bytes]]:
        both = {
            place: confirm(states[place], survivors, self.identities[place].sign)
            for place in survivors.alive
        }
        return {at: state for at, (state, _) in both.items()}, {
            at: s for at, (_, s) in both.items()
        }

    def routed(self) -> tuple[ServerState, dict[int, ClientState], dict[int, dict[int, bytes]]]:
        """Everyone has shared: the server, the clients, and what each finds from the others."""
        configuration, names = self.configuration, self.configuration.cohort
        states, adverts = self.advertised()
        told = {
            names[at]: write_one(Kind.ADVERT, configuration, advert.to_bytes())
            for at, advert in adverts.items()
        }
        server, _, refused = gather(configuration, ROOT, self.verify, told)
        states, sealed = self.shared(states, adverts)
        given = {names[at]: write_each(Kind.SHARES, configuration, s) for at, s in sealed.items()}
        server, inboxes, more = route(server, given)
        assert not refused | more
        read = {
            configuration.place(name): read_each(Kind.INBOX, configuration, raw)
            for name, raw in inboxes.items()
        }
        return server, states, read

    def absorbed(
        self, server: ServerState, masked: Mapping[int, NDArray[np.uint32]]
    ) -> ServerState:
        """The server with these vectors added, on top of zeros."""
        server = replace(
            server, alive=frozenset(), total=np.zeros(self.configuration.size, np.uint32)
        )
        for at, words in masked.items():
            raw = write_one(Kind.MASKED, self.configuration, words.data.cast("B"))
            server = absorb(server, self.configuration.cohort[at], raw)
        return server

    def finished(self, server: ServerState, openings: Mapping[int, Mapping[int, bytes]]) -> Total:
        names = self.configuration.cohort
        return finish(server, {
            names[at]: write_each(Kind.OPENING, self.configuration, shares)
            for at, shares in openings.items()
        })[0]  # fmt: skip

    def closed(
        self, words: Mapping[int, NDArray[np.int32]], alive: Sequence[int]
    ) -> tuple[dict[int, ClientState], Survivors]:
        """Everyone shares, those alive mask: their states, and the lists that follow."""
        states, sealed = self.shared(*self.advertised())
        states, _ = self.masked(states, sealed, words)
        dropped = tuple(place for place in sealed if place not in alive)
        return {at: states[at] for at in alive}, Survivors(tuple(alive), dropped)


def inbox_of(place: int, sealed: Mapping[int, Mapping[int, bytes]]) -> dict[int, bytes]:
    """What a client finds from those that shared."""
    return {source: shares[place] for source, shares in sealed.items() if place in shares}


def cohort(configuration: Configuration, seed: int | None = None) -> Cohort:
    """Keys for a cohort, fresh ones unless a seed repeats them; a signature is checked once."""
    entropy = os.urandom if seed is None else np.random.default_rng(seed).bytes
    identities = {place: Identity.new(entropy) for place in range(len(configuration.cohort))}
    names = configuration.cohort
    roster = {names[place]: identity.public for place, identity in identities.items()}
    return Cohort(configuration, identities, lru_cache(maxsize=None)(roster_verifier(roster)))


def vector(configuration: Configuration, seed: int) -> NDArray[np.int32]:
    """Integers over the whole range of every channel, its ends among them."""
    generator = np.random.default_rng(seed)
    parts = [
        generator.integers(-channel.top, channel.top, channel.size, endpoint=True)
        for channel in configuration.channels
    ]
    words = np.concatenate(parts).astype(np.int32)
    words[seed % len(words)] = configuration.channels[0].top * (1 if seed % 2 else -1)
    return words
