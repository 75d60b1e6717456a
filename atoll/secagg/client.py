"""A client of one exchange: five steps, each from a state and what came to a state and what goes.

    advertise   fresh keys, signed                          -> ADVERT
    share       everyone's adverts                          -> SHARES
    mask        neighbours' shares, the broadcast's root    -> MASKED
    confirm     who is summed                               -> SIGNATURE
    open_sum    that enough others confirm the same         -> OPENING, and nothing is kept

The new state has to be on the client's disk before the message leaves (`Member` does that). What
is asked again with the same gives the same, but a vector is masked once, and a sum opened once;
with something else, or out of turn, a step is refused.

Source: Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning (CCS
2017), Figure 4, with its consistency check and signatures; the graph of Bell et al. (CCS 2020).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from atoll.errors import ProtocolError
from atoll.secagg.channels import check_words
from atoll.secagg.configuration import Configuration
from atoll.secagg.keys import KEY, Signer, Verifier, common, derive, private_key
from atoll.secagg.masks import add_streams
from atoll.secagg.messages import Advert, Survivors
from atoll.secagg.sealed import agreements, own_share, seal, unseal
from atoll.secagg.session import Session, begun, check_advert, commitment
from atoll.secagg.shamir import SHARE
from atoll.secagg.state import ClientState, Step

__all__ = ["advertise", "confirm", "mask", "open_sum", "rounding_seed", "share"]


def advertise(
    configuration: Configuration,
    name: str,
    sign: Signer,
    *,
    entropy: Callable[[int], bytes] = os.urandom,
) -> tuple[ClientState, Advert]:
    """Take part in an exchange, with keys that are used in no other.

    Raises:
        ProtocolError: for a client that is not of the cohort.
    """
    place, secret = configuration.place(name), entropy(KEY)
    advert = Advert(
        private_key(derive(secret, "sealing key"))[1],
        private_key(derive(secret, "masking key"))[1],
        commitment(derive(secret, "own mask"), configuration, place),
    )
    advert = replace(advert, signature=sign(advert.statement(configuration, name)))
    return ClientState(configuration, place, secret, adverts={place: advert}), advert


def share(
    state: ClientState, adverts: Mapping[int, Advert], verify: Verifier
) -> tuple[ClientState, dict[int, bytes]]:
    """Check everyone's adverts, and encrypt a share of both secrets for each neighbour.

    Raises:
        ProtocolError: for an advert that is not its client's, or other adverts than before.
    """
    own = state.place
    if state.step == Step.SHARED and adverts == state.adverts:
        return state, seal(state, begun(state.configuration, adverts))
    _in_turn(state, Step.ADVERTISED, "share")
    if adverts.get(own) != state.adverts[own]:
        raise ProtocolError(f"the adverts do not hold the one that {state.name} sent")
    for place in adverts.keys() - {own}:
        check_advert(state.configuration, place, adverts[place], verify)
    session = begun(state.configuration, adverts)
    agreed = agreements(state.secret, session, own)
    after = replace(state, step=Step.SHARED, adverts=adverts, agreed=agreed)
    return after, seal(after, session)


def rounding_seed(state: ClientState) -> bytes:
    """The coins with which this client rounds its vector; see `channels.quantise`."""
    return derive(state.secret, "rounding")


def mask(
    state: ClientState, inbox: Mapping[int, bytes], root: bytes, words: NDArray[np.int32]
) -> tuple[ClientState, NDArray[np.uint32]]:
    """Put the client's masks over its integers, where these lie; once, whatever comes of it.

    root: of the broadcast that the client was sent.   words: used up.

    Raises:
        ProtocolError: for shares that are not as their senders wrote them, too few of them,
            integers that no channel allows, and whenever a vector was masked before.
    """
    _in_turn(state, Step.SHARED, "mask")
    if len(root) != KEY:
        raise ProtocolError(f"the root of a broadcast has {KEY} bytes, not {len(root)}")
    check_words(state.configuration.channels, words)
    session = begun(state.configuration, state.adverts)
    received = unseal(state, session, inbox)
    masking = private_key(derive(state.secret, "masking key"))[0]
    plus, minus = [session.own_seed(derive(state.secret, "own mask"), state.place)], list[bytes]()
    for each in received:
        agreed = common(masking, session.adverts[each].masking)
        seed = session.pair_seed(agreed, root, state.place, each)
        (plus if state.place < each else minus).append(seed)
    masked = words.view(np.uint32)
    add_streams(masked, plus, minus)
    return replace(state, step=Step.MASKED, agreed={}, received=received, root=root), masked


def confirm(state: ClientState, survivors: Survivors, sign: Signer) -> tuple[ClientState, bytes]:
    """Sign who is summed and on which model, once.

    Raises:
        ProtocolError: for too few, for clients that cannot be, and for another set than before.
    """
    if state.step != Step.SIGNED or survivors != state.survivors:
        _in_turn(state, Step.MASKED, "confirm")
    session = begun(state.configuration, state.adverts)
    _check_survivors(state, session, survivors)
    signature = sign(session.statement(survivors, state.root))
    return replace(state, step=Step.SIGNED, survivors=survivors), signature


def _check_survivors(state: ClientState, session: Session, survivors: Survivors) -> None:
    alive, dropped = set(survivors.alive), set(survivors.dropped)
    near = {*session.ring.near(state.place), state.place}
    if (len(alive), len(dropped)) != (len(survivors.alive), len(survivors.dropped)):
        raise ProtocolError("a list of survivors names a client twice; each counts once")
    if both := alive & dropped:
        raise ProtocolError(
            f"client {min(both)} is to be both summed and dropped: opened in both ways, its vector "
            "would be bare"
        )
    if strangers := (alive | dropped) - state.adverts.keys():
        raise ProtocolError(f"client {min(strangers)} sent no advert, and cannot be summed")
    if state.place not in alive:
        raise ProtocolError(f"{state.name} has masked its vector, and is not among the survivors")
    if (alive | dropped) & near != {*state.received, state.place}:
        raise ProtocolError(
            f"the survivors and those who dropped out are not the neighbours whose shares "
            f"{state.name} has"
        )
    least, least_near = state.configuration.least, state.configuration.least_near
    if len(alive) < least or len(alive & near) < least_near:
        raise ProtocolError(
            f"{len(alive)} survivors, {len(alive & near)} of them near {state.name}: {least} and "
            f"{least_near} are needed; nothing is opened"
        )


def open_sum(
    state: ClientState, signatures: Mapping[int, bytes], verify: Verifier
) -> tuple[ClientState, dict[int, bytes]]:
    """One share for each neighbour, once, when enough clients confirm the same survivors.

    Raises:
        ProtocolError: for too few signatures, or one that is over other survivors or another model.
    """
    _in_turn(state, Step.SIGNED, "open the sum")
    survivors, configuration = state.survivors, state.configuration
    assert survivors is not None, "it was signed"
    statement = begun(configuration, state.adverts).statement(survivors, state.root)
    for place in signatures.keys() - {state.place}:
        name, signature = configuration.cohort[place], signatures[place]
        if place not in survivors.alive or not verify(name, statement, signature):
            raise ProtocolError(
                f"{name} has not signed what {state.name} has: it was told of other survivors or "
                "sent another model; nothing is opened"
            )
    if len({*signatures, state.place}) < configuration.signers:
        raise ProtocolError(
            f"{len({*signatures, state.place})} clients confirm who is summed, and "
            f"{configuration.signers} must; nothing is opened"
        )
    alive = set(survivors.alive)
    opened = {
        each: both[:SHARE] if each in alive else both[SHARE:]
        for each, both in state.received.items()
    }
    opened[state.place] = own_share(state)
    return state.erased(), opened


def _in_turn(state: ClientState, step: Step, what: str) -> None:
    if state.step != step:
        raise ProtocolError(
            f"{state.name} is asked to {what} in exchange {state.configuration.moment.exchange}, "
            f"where it has {state.step.name.lower()} last: each step is taken once, in turn"
        )
