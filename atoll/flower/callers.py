"""Who asks at the public port: the key that signs a request, known before its body is read."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

__all__ = ["Headers", "Knows", "signers_of"]

Headers = Sequence[tuple[bytes, bytes]]
Knows = Callable[[Headers], Awaitable[bool]]


def signers_of(app: Any) -> Knows | None:
    """Whether a request is signed by a key that may connect; None where there are no keys.

    Flower, whose application this is, then looks at the time that was signed, and at who it is.
    """
    if not app.state.enable_supernode_auth:
        return None

    def admitted(key: bytes) -> bool:
        state = app.state.linkstate_factory.state()
        return state.get_node_id_by_public_key(key) is not None

    async def knows(headers: Headers) -> bool:
        held = {name.decode("latin-1"): value for name, value in headers}
        try:
            key = b64decode(held[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            signature = b64decode(held[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
            time = held[TIMESTAMP_HEADER]
        except (KeyError, ValueError):
            return False
        # Only keys that were admitted are parsed.
        if not await asyncio.to_thread(admitted, key):
            return False
        return bool(verify_signature(bytes_to_public_key(key), time, signature))

    return knows
