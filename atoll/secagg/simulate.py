"""A whole exchange in this process: for simulations, and for every way in which clients stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from atoll.secagg.configuration import Configuration
from atoll.secagg.keys import KEY, Identity, roster_verifier
from atoll.secagg.member import Member
from atoll.secagg.server import absorb, close, finish, gather, route, witness
from atoll.secagg.state import Step
from atoll.secagg.store import Held
from atoll.secagg.total import Total

__all__ = ["secure_sum"]

Values = Mapping[str, NDArray[np.floating]]


def secure_sum(
    configuration: Configuration,
    values: Callable[[str], Values],
    stops: Mapping[str, Step] | None = None,
    root: bytes = bytes(KEY),
) -> Total:
    """The sum of what the clients that mask send, by the same steps and bytes as between machines.

    values: name -> that client's vectors, by channel; asked for when the client masks.
    stops: the first step that a client does not take, of those that stop.

    Raises:
        QuorumError: when too many stop; then nothing is released.
        ProtocolError: when too many of one client's neighbours do, and it will not go on.
    """
    identities = {name: Identity.new() for name in configuration.cohort}
    # Everyone checks everyone's signatures; in one process each is checked once.
    verify = lru_cache(maxsize=None)(
        roster_verifier({name: identity.public for name, identity in identities.items()})
    )
    members = {
        name: Member(name, identity.sign, verify, Held()) for name, identity in identities.items()
    }
    stopped = stops or {}

    def there(step: Step, among: Mapping[str, object] = members) -> list[str]:
        return [name for name in among if stopped.get(name, step + 1) > step]

    adverts = {name: members[name].advert(configuration) for name in there(Step.ADVERTISED)}
    state, everyone, _ = gather(configuration, root, verify, adverts)
    shares = {name: members[name].shares(configuration, everyone) for name in there(Step.SHARED)}
    state, inboxes, _ = route(state, shares)
    for name in there(Step.MASKED, inboxes):
        words = members[name].quantised(configuration, values(name)).words
        masked = members[name].masked(configuration, inboxes[name], root, words)
        state = absorb(state, name, masked)
    survivors = close(state)
    signing = there(Step.SIGNED)
    signatures = {name: members[name].signature(configuration, survivors) for name in signing}
    confirmed, _ = witness(state, signatures)
    openings = {
        name: members[name].opening(configuration, confirmed) for name in there(Step.OPENED)
    }
    return finish(state, openings)[0]
