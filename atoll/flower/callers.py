"""Who asks at the public port: the key that signs a request, known before its body is read.

Flower, whose application this asks, then looks at the time that was signed, and at who it is.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

__all__ = ["Callers"]


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

    async def signed(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether headers are signed by the key of one that may connect."""
        held = {name.decode("latin-1"): value for name, value in headers}
        try:
            key = b64decode(held[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            signature = b64decode(held[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
            time = held[TIMESTAMP_HEADER]
        except (KeyError, ValueError):
            return False
        # Only keys that were admitted are parsed.
        if not await asyncio.to_thread(self._admits, key):
            return False
        return bool(verify_signature(bytes_to_public_key(key), time, signature))

    def _some(self) -> bool:
        return bool(self._state.linkstate_factory.state().get_node_info())

    def _admits(self, key: bytes) -> bool:
        return self._state.linkstate_factory.state().get_node_id_by_public_key(key) is not None
