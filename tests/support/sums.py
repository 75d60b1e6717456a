"""Cohorts of secure sums: their keys, and every state and message of an exchange on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from atoll.secagg import Channel, Configuration, Identity, Moment, Terms, agree
from atoll.secagg.client import advertise, confirm, mask, own_advert, share
from atoll.secagg.keys import Verifier, roster_verifier
from atoll.secagg.messages import Advert, Survivors
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

    def advertised(self) -> tuple[dict[int, ClientState], dict[int, Advert]]:
        states = {
            place: advertise(self.configuration, name)
            for place, name in enumerate(self.configuration.cohort)
        }
        signers = self.identities
        return states, {at: own_advert(state, signers[at].sign) for at, state in states.items()}

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
            place: mask(states[place], inbox_of(place, sealed), root, words[place])
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


def cohort(configuration: Configuration) -> Cohort:
    """Fresh keys for a cohort; each signature is checked once in all."""
    identities = {place: Identity.new() for place in range(len(configuration.cohort))}
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
