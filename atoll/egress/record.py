"""The record that a site keeps of all that leaves it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from atoll.disk.files import make_folder
from atoll.disk.lock import alone
from atoll.egress.chain import Chain
from atoll.egress.lines import Privacy, Sent
from atoll.egress.measure import tensor_facts
from atoll.egress.seal import certificate_of, public_key, sha256
from atoll.errors import EgressError

if TYPE_CHECKING:
    from atoll.core import Payload

__all__ = ["LARGE", "TOLD", "Departure", "Egress"]

LARGE = 64 * 2**20
"""Bytes after which a new file is begun."""
TOLD = 2_000
"""Characters of a message's text that are kept."""


@dataclass(frozen=True)
class Departure:
    """A message that is about to leave.

    task: the algorithm's name, or `opening`, `failure`, `progress`.
    payload: as it is on the wire, after all stages; None where no tensors leave.
    data: the message, or how many bytes it has and their SHA-256.
    text: what is said in words, of a failure above all.
    epsilon: what all runs here have spent with it; None where nothing bounds it.
    """

    run: str
    round: int
    exchange: int
    task: str
    payload: Payload | None
    data: bytes | tuple[int, str]
    text: str | None = None
    epsilon: float | None = None


class Egress:
    """A folder of signed lines, each bound to the one before; see `open`."""

    def __init__(self, chain: Chain, held: ExitStack) -> None:
        self._chain, self._held = chain, held
        self._turn, self._open = threading.Lock(), True

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        site: str,
        key: EllipticCurvePrivateKey,
        certificate_pem: bytes,
        large: int = LARGE,
    ) -> Self:
        """Open a site's record, or begin it; one process at a time.

        large: bytes after which a new file is begun.

        Raises:
            EgressError: when the record is another site's, or its end was changed.
            RunError: when another process has it open, or it cannot be written.
        """
        try:
            certificate = certificate_of(certificate_pem)
        except ValueError as error:
            raise EgressError(f"the certificate of {site} cannot be used: {error}") from None
        if public_key(certificate) != key.public_key():
            raise EgressError(
                f"the certificate of {site} belongs to another key than the one given"
            )
        make_folder(folder)
        refusal = f"another process keeps its record in {folder}; wait for its end"
        with ExitStack() as held:
            held.enter_context(alone(folder, refusal))
            chain = Chain(folder, site, key, certificate_pem, large=large)
            return cls(chain, held.pop_all())

    def append(self, departure: Departure) -> None:
        """Write a departure down; when this returns it is on the disk, and the message may leave.

        Raises:
            EgressError: when someone else has changed the file meanwhile.
            RunError: when nothing could be written (a full disk). The message must not leave.
        """
        data = departure.data
        size, digest = (len(data), sha256(data)) if isinstance(data, bytes) else data
        tensors = tensor_facts(departure.payload or {})
        with self._turn:
            assert self._open, "the record is closed"
            self._chain.write(
                Sent(
                    **self._chain.next(),
                    run=departure.run,
                    round=departure.round,
                    exchange=departure.exchange,
                    task=departure.task,
                    tensors=tensors,
                    bytes=size,
                    sha256=digest,
                    privacy=Privacy(epsilon=departure.epsilon),
                    text=_short(departure.text),
                )
            )

    def close(self) -> None:
        """Let go of the folder."""
        with self._turn:
            self._open = False
            self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= TOLD else text[: TOLD - 1] + "…"
