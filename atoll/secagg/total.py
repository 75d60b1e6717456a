"""The sum, from what survivors opened: all masks are taken off at once, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.errors import ProtocolError, QuorumError
from atoll.secagg.channels import restored
from atoll.secagg.decoding import recovered
from atoll.secagg.gathered import ServerState
from atoll.secagg.keys import common, private_key
from atoll.secagg.masks import add_streams
from atoll.secagg.session import commitment

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


def unmasked(
    state: ServerState, openings: Mapping[int, Mapping[int, bytes]]
) -> tuple[Total, dict[int, int]]:
    """Take all masks off the sum; beside it, who opened a wrong share, and of whose secret.

    openings: the shares that each survivor opened, by places of holder and owner. Wrong ones are
    looked for where the first ones do not give what was promised.

    Raises:
        ProtocolError: when shares do not give what the adverts promised; nothing is released.
        QuorumError: when too few were opened.
    """
    secrets, wrong = dict[int, bytes](), dict[int, int]()
    for owner in (*sorted(state.alive), *sorted(state.sharing - state.alive)):
        secrets[owner], holders = _secret(state, owner, openings, frozenset(wrong))
        wrong |= dict.fromkeys(holders - wrong.keys(), owner)
    own = [state.session.own_seed(secrets[at], at) for at in sorted(state.alive)]
    added, taken = _pairs(state, secrets)
    total = state.total.copy()
    add_streams(total, taken, [*own, *added])
    return _decoded(state, total.view(np.int32)), wrong


def _pairs(state: ServerState, secrets: Mapping[int, bytes]) -> tuple[list[bytes], list[bytes]]:
    """Seeds of the masks that survivors have with the dropped: those they added, and took off."""
    added, taken = list[bytes](), list[bytes]()
    for gone in sorted(state.sharing - state.alive):
        masking = private_key(secrets[gone])[0]
        for each in state.session.ring.near(gone):
            if each in state.alive:
                agreed = common(masking, state.session.adverts[each].masking)
                seed = state.session.pair_seed(agreed, state.root, gone, each)
                (added if each < gone else taken).append(seed)
    return added, taken


def _secret(
    state: ServerState,
    owner: int,
    openings: Mapping[int, Mapping[int, bytes]],
    suspected: frozenset[int],
) -> tuple[bytes, frozenset[int]]:
    """What was opened of one client, and who opened a wrong share of it.

    suspected: holders of other wrong shares, who are not believed where there are enough others.
    """
    threshold = state.configuration.threshold
    near = (*state.session.ring.near(owner), owner)
    shares = {holder + 1: openings[holder][owner] for holder in near if holder in openings}
    if len(shares) < threshold:
        raise QuorumError(
            f"{len(shares)} clients opened their share of {state.configuration.cohort[owner]}'s "
            f"secret, and {threshold} must; the sum stays closed"
        )
    believed = {at: share for at, share in shares.items() if at - 1 not in suspected}
    for some in (believed, shares) if suspected else (shares,):
        if len(some) >= threshold:
            found = recovered(some, threshold, lambda secret: _promised(state, owner, secret))
            if found is not None:
                return found[0], frozenset(at - 1 for at in found[1])
    raise ProtocolError(_unlike(state, owner))


def _promised(state: ServerState, owner: int, secret: bytes) -> bool:
    """The seed of a survivor's own mask, or the masking key of a client that dropped out."""
    advert = state.session.adverts[owner]
    if owner in state.alive:
        return commitment(secret, state.configuration, owner) == advert.commitment
    return private_key(secret)[1] == advert.masking


def _unlike(state: ServerState, place: int) -> str:
    return (
        f"the shares of {state.configuration.cohort[place]} do not give what its advert promised: "
        "it shared another secret, or too many opened a wrong share; the sum stays closed"
    )


def _decoded(state: ServerState, total: NDArray[np.int32]) -> Total:
    configuration = state.configuration
    return Total(
        tuple(configuration.cohort[place] for place in sorted(state.alive)),
        restored(configuration.channels, total),
        {channel.name: channel.step for channel in configuration.channels},
    )
