"""Shares of a client's two secrets, on their way to its neighbours and from them.

One is the seed of its own mask, the other the key that its pairwise masks come from.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from atoll.errors import ProtocolError
from atoll.secagg.keys import common, derive, private_key
from atoll.secagg.session import Session
from atoll.secagg.shamir import split
from atoll.secagg.state import ClientState

__all__ = ["agreements", "own_share", "seal", "unseal"]

# A key encrypts one message.
_NONCE = bytes(12)


def agreements(secret: bytes, session: Session, place: int) -> dict[int, bytes]:
    """What a client and each of its neighbours alone can compute, for shares either way."""
    sealing = private_key(derive(secret, "sealing key"))[0]
    near = session.ring.near(place)
    return {each: common(sealing, session.adverts[each].sealing) for each in near}


def seal(state: ClientState, session: Session) -> dict[int, bytes]:
    """Both shares for each neighbour, encrypted to it; the same each time."""
    seeds, keys = _shares(state, [each + 1 for each in state.agreed])
    sealed = {}
    for each, agreed in state.agreed.items():
        cipher = ChaCha20Poly1305(session.sealing_key(agreed, state.place, each))
        both = seeds[each + 1] + keys[each + 1]
        sealed[each] = cipher.encrypt(_NONCE, both, session.about(state.place, each))
    return sealed


def unseal(state: ClientState, session: Session, inbox: Mapping[int, bytes]) -> dict[int, bytes]:
    """The two shares of each neighbour that sent them.

    Raises:
        ProtocolError: for shares from others, too few, or not as their senders wrote them.
    """
    if strangers := inbox.keys() - state.agreed.keys():
        raise ProtocolError(
            f"shares from client {min(strangers)}, who is no neighbour of {state.name}"
        )
    if len(inbox) + 1 < state.configuration.least_near:
        raise ProtocolError(
            f"{len(inbox)} neighbours of {state.name} shared their secrets, and with itself "
            f"{state.configuration.least_near} are needed; the exchange ends here"
        )
    received = {}
    for each in sorted(inbox):
        cipher = ChaCha20Poly1305(session.sealing_key(state.agreed[each], each, state.place))
        try:
            received[each] = cipher.decrypt(_NONCE, inbox[each], session.about(each, state.place))
        except InvalidTag:
            raise ProtocolError(
                f"the shares from {state.configuration.cohort[each]} were not written by it for "
                f"{state.name} in this session"
            ) from None
    return received


def own_share(state: ClientState) -> bytes:
    """The client's share of the seed of its own mask."""
    at = state.place + 1
    return _shares(state, [at])[0][at]


def _shares(state: ClientState, at: list[int]) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Shares of the seed of its own mask, and of its masking key, at these places from 1 on."""
    threshold = state.configuration.threshold
    seed, key = derive(state.secret, "own mask"), derive(state.secret, "masking key")
    return (
        split(seed, threshold, derive(state.secret, "shares of own mask"), at),
        split(key, threshold, derive(state.secret, "shares of masking key"), at),
    )
