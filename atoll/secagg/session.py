"""What follows from everyone's adverts: the session, its graph, and each pair's mask."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from atoll.errors import ProtocolError
from atoll.secagg.configuration import Configuration
from atoll.secagg.graph import Ring, ring
from atoll.secagg.keys import Verifier, check_public, derive
from atoll.secagg.messages import Advert, Survivors
from atoll.secagg.wire import write_items

__all__ = ["Session", "alike", "begun", "check_advert", "commitment"]


@dataclass(frozen=True)
class Session:
    """The adverts that all clients have, and what they give.

    digest: over configuration and adverts; masks, encryption and signatures are bound to it, so
    that clients with different adverts understand nothing of each other.
    """

    configuration: Configuration
    adverts: Mapping[int, Advert]
    digest: bytes
    ring: Ring

    def pair_seed(self, agreed: bytes, root: bytes, one: int, other: int) -> bytes:
        """The seed of the mask that the smaller place adds and the larger takes off.

        root: of the broadcast; two clients that were sent different models have different masks,
        which do not cancel (Pasquini, Francati, Ateniese, Eluding Secure Aggregation in Federated
        Learning via Model Inconsistency, CCS 2022).
        """
        return derive(agreed, "pair", self.digest + root + _places(*sorted((one, other))))

    def own_seed(self, secret: bytes, place: int) -> bytes:
        """The seed of a client's own mask."""
        return derive(secret, "own", self.digest + _places(place))

    def sealing_key(self, agreed: bytes, source: int, target: int) -> bytes:
        """What encrypts one message, from one client to another."""
        return derive(agreed, "sealing", self.digest + _places(source, target))

    def about(self, source: int, target: int) -> bytes:
        """What that encryption is bound to."""
        return self.digest + _places(source, target)

    def statement(self, survivors: Survivors, root: bytes) -> bytes:
        """What clients sign before they open anything."""
        closed = hashlib.sha256(survivors.packed).digest()
        return b"atoll secagg survivors\0" + self.digest + root + closed


def begun(configuration: Configuration, adverts: Mapping[int, Advert]) -> Session:
    """The session of adverts that were checked.

    Raises:
        ProtocolError: when they are too few, or two of them have a key in common.
    """
    if len(adverts) < configuration.least:
        raise ProtocolError(
            f"{len(adverts)} adverts, and {configuration.least} clients must be there at the end; "
            "the exchange ends here"
        )
    if alike(adverts):
        raise ProtocolError("two adverts have a key in common; each must be of one client alone")
    said = write_items({place: advert.to_bytes() for place, advert in adverts.items()})
    start = b"atoll secagg session\0" + configuration.digest
    seed = hashlib.sha256(start + said).digest()
    return Session(configuration, adverts, seed, ring(adverts, configuration.neighbours, seed))


def alike(adverts: Mapping[int, Advert]) -> frozenset[int]:
    """Those with a key that is not theirs alone."""
    keys = Counter(key for one in adverts.values() for key in (one.sealing, one.masking))
    return frozenset(
        place for place, one in adverts.items() if keys[one.sealing] > 1 or keys[one.masking] > 1
    )


def check_advert(
    configuration: Configuration, place: int, advert: Advert, verify: Verifier
) -> None:
    """Whether an advert is of whom it says, for this very exchange.

    Raises:
        ProtocolError: when its signature is another's, or over another configuration; for keys of
            small order, with which nobody could mask.
    """
    name = configuration.cohort[place]
    if not verify(name, advert.statement(configuration, name), advert.signature):
        raise ProtocolError(
            f"the advert of {name} is not signed by {name} for this exchange: its keys were "
            "changed on the way, or it is of another exchange, or the roster has no such client"
        )
    check_public(advert.sealing)
    check_public(advert.masking)


def commitment(seed: bytes, configuration: Configuration, place: int) -> bytes:
    """Fixes the seed of a client's own mask without telling it."""
    return derive(seed, "commitment", configuration.digest + _places(place))


def _places(*places: int) -> bytes:
    return struct.pack(f">{len(places)}I", *places)
