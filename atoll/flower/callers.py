"""Who asks at the public port: the key that signs a request, known before its body is read.

When it is read, the same key must have signed it whole. Flower, whose application this asks, then
looks at the time that was signed, and at who it is.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from atoll.flower.bodies import HEADER, statement

__all__ = ["Callers"]

Headers = Sequence[tuple[bytes, bytes]]


class Callers:
    """Those that may connect, as Flower's application knows them."""

    def __init__(self, app: Any) -> None:
        self._state = app.state
        self._told = not self.have_keys

    @property
    def have_keys(self) -> bool:
        """Whether they sign what they ask; without TLS they do not."""
        return bool(self._state.enable_supernode_auth)

    async def are_told(self) -> bool:
        """Whether the operator has said who may connect, since the SuperLink began."""
        self._told = self._told or await asyncio.to_thread(self._some)
        return self._told

    async def signed(self, headers: Headers) -> bool:
        """Whether headers are signed by the key of one that may connect."""
        claim = _claim(headers)
        return claim is not None and await asyncio.to_thread(self._signed, claim)

    async def altered(self, headers: Headers, path: str, body: bytes) -> bool:
        """Whether a request is not as the client signed it whose key it names.

        Of keys that may not connect Flower says so itself.
        """
        claim = _claim(headers)
        return claim is None or await asyncio.to_thread(self._altered, claim, path, body)

    def _some(self) -> bool:
        return bool(self._state.linkstate_factory.state().get_node_info())

    def _signed(self, claim: _Claim) -> bool:
        return self._admits(claim) and _verified(claim, claim.time.encode(), claim.signature)

    def _altered(self, claim: _Claim, path: str, body: bytes) -> bool:
        whole = statement(claim.time, path, body)
        return self._admits(claim) and not _verified(claim, whole, claim.whole)

    def _admits(self, claim: _Claim) -> bool:
        """Only keys that were admitted are parsed."""
        state = self._state.linkstate_factory.state()
        return state.get_node_id_by_public_key(claim.key) is not None


@dataclass(frozen=True)
class _Claim:
    """signature: of the time, which is Flower's.   whole: of the request, which is ours."""

    key: bytes
    time: str
    signature: bytes
    whole: bytes


def _claim(headers: Headers) -> _Claim | None:
    """What a request says of who sends it; None where that is not said, or said twice."""
    named = (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, HEADER, TIMESTAMP_HEADER)
    told = [[value for name, value in headers if name == one.encode()] for one in named]
    if any(len(each) != 1 for each in told):
        return None
    (key,), (signature,), (whole,), (time,) = told
    try:
        raw = [b64decode(one, validate=True) for one in (key, signature, whole)]
        return _Claim(raw[0], time.decode("ascii"), *raw[1:])
    except ValueError:
        return None


def _verified(claim: _Claim, message: bytes, signature: bytes) -> bool:
    return bool(verify_signature(bytes_to_public_key(claim.key), message, signature))
