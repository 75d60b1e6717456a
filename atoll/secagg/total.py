"""The sum, from what survivors opened: all masks are taken off at once, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.errors import ProtocolError, QuorumError
from atoll.secagg.channels import restored
from atoll.secagg.gathered import ServerState
from atoll.secagg.keys import common, private_key
from atoll.secagg.masks import add_streams
from atoll.secagg.session import commitment
from atoll.secagg.shamir import combine

__all__ = ["Total", "unmasked"]


@dataclass(frozen=True)
class Total:
    """The sum over the survivors.

    integers: by channel, exactly the sum of what clients rounded to.
    """

    survivors: tuple[str, ...]
    integers: Mapping[str, NDArray[np.int32]]
    steps: Mapping[str, float]

    def values(self, channel: str) -> NDArray[np.float64]:
        """The sum in the channel's own unit."""
        return np.asarray(self.integers[channel] * self.steps[channel], np.float64)


def unmasked(state: ServerState, openings: Mapping[int, Mapping[int, bytes]]) -> Total:
    """Take all masks off the sum.

    openings: the shares that each survivor opened, by places of holder and owner.

    Raises:
        ProtocolError: when shares do not give what the adverts promised; nothing is released.
        QuorumError: when too few were opened.
    """
    session = state.session
    own = [session.own_seed(_seed(state, at, openings), at) for at in sorted(state.alive)]
    added, taken = _pairs(state, openings)
    total = state.total.copy()
    add_streams(total, taken, [*own, *added])
    return _decoded(state, total.view(np.int32))


def _pairs(
    state: ServerState, openings: Mapping[int, Mapping[int, bytes]]
) -> tuple[list[bytes], list[bytes]]:
    """Seeds of the masks that survivors have with the dropped: those they added, and took off."""
    added, taken = list[bytes](), list[bytes]()
    for gone in sorted(state.sharing - state.alive):
        masking = private_key(_key(state, gone, openings))[0]
        for each in state.session.ring.near(gone):
            if each in state.alive:
                agreed = common(masking, state.session.adverts[each].masking)
                seed = state.session.pair_seed(agreed, state.root, gone, each)
                (added if each < gone else taken).append(seed)
    return added, taken


def _seed(state: ServerState, place: int, openings: Mapping[int, Mapping[int, bytes]]) -> bytes:
    """Of a survivor's own mask."""
    seed = _combined(state, place, openings)
    promised = state.session.adverts[place].commitment
    if commitment(seed, state.configuration, place) != promised:
        raise ProtocolError(_unlike(state, place))
    return seed


def _key(state: ServerState, place: int, openings: Mapping[int, Mapping[int, bytes]]) -> bytes:
    """The masking key of a client that dropped out."""
    key = _combined(state, place, openings)
    if private_key(key)[1] != state.session.adverts[place].masking:
        raise ProtocolError(_unlike(state, place))
    return key


def _combined(state: ServerState, place: int, openings: Mapping[int, Mapping[int, bytes]]) -> bytes:
    shares = {
        holder + 1: openings[holder][place]
        for holder in (*state.session.ring.near(place), place)
        if holder in openings
    }
    if len(shares) < state.configuration.threshold:
        raise QuorumError(
            f"{len(shares)} clients opened their share of {state.configuration.cohort[place]}'s "
            f"secret, and {state.configuration.threshold} must; the sum stays closed"
        )
    return combine(shares, state.configuration.threshold)


def _unlike(state: ServerState, place: int) -> str:
    return (
        f"the shares of {state.configuration.cohort[place]} do not give what its advert promised: "
        "it shared another secret, or a neighbour opened a wrong share; the sum stays closed"
    )


def _decoded(state: ServerState, total: NDArray[np.int32]) -> Total:
    configuration = state.configuration
    return Total(
        tuple(configuration.cohort[place] for place in sorted(state.alive)),
        restored(configuration.channels, total),
        {channel.name: channel.step for channel in configuration.channels},
    )
