"""What the server has gathered so far, and how it reads one message from each client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from atoll.errors import ProtocolError, QuorumError
from atoll.secagg.configuration import Configuration
from atoll.secagg.keys import Verifier
from atoll.secagg.messages import Survivors
from atoll.secagg.session import Session

__all__ = ["Refused", "ServerState", "enough", "read_all"]

Refused = dict[str, str]
"""Why a client's message was not used, by name."""
Read = TypeVar("Read")


@dataclass(frozen=True)
class ServerState:
    """What the server knows.

    root: of the broadcast; read from `witness` on.   sharing: who shared its secrets, by place.
    alive: whose vectors are in `total`, which grows in place.
    """

    session: Session
    root: bytes
    verify: Verifier
    sharing: frozenset[int] = frozenset()
    alive: frozenset[int] = frozenset()
    total: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32), repr=False)

    @property
    def configuration(self) -> Configuration:
        """What all agreed on."""
        return self.session.configuration

    @property
    def survivors(self) -> Survivors:
        """Who is summed if nobody else comes."""
        return Survivors(tuple(sorted(self.alive)), tuple(sorted(self.sharing - self.alive)))


def read_all(
    configuration: Configuration,
    messages: Mapping[str, bytes],
    read: Callable[[int, bytes], Read],
) -> tuple[dict[int, Read], Refused]:
    """Each client's message by its place, and why some were not used."""
    found, refused = dict[int, Read](), Refused()
    for name in sorted(messages):
        try:
            place = configuration.place(name)
            found[place] = read(place, messages[name])
        except ProtocolError as error:
            refused[name] = str(error)
    return found, refused


def enough(configuration: Configuration, count: int, did: str, refused: Mapping[str, str]) -> None:
    """Stop where too few are left for a sum to be opened at the end.

    Raises:
        QuorumError: with the first reasons.
    """
    if count < configuration.least:
        why = "".join(f"\n  {name}: {reason}" for name, reason in list(refused.items())[:5])
        raise QuorumError(
            f"{count} of {len(configuration.cohort)} clients {did}, and the secure sum needs "
            f"{configuration.least}; it stays closed, and can be asked for again as another "
            f"attempt{why}"
        )
