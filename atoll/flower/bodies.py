"""A client's signature over the whole of a request, beside Flower's, which is over the time alone.

Without it, whoever has the headers of one request could send them again with another body, for as
long as Flower takes their time for the present.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

__all__ = ["HEADER", "WholeRequest", "statement"]

HEADER = "atoll-signature"


def statement(time: str, path: str, body: bytes) -> bytes:
    """What a client signs: when it asks, what for, and with which body."""
    said = b"\0".join((b"atoll request", time.encode(), path.encode()))
    return said + b"\0" + sha256(body).digest()


class WholeRequest(NodeAuthHttpInterceptor):  # type: ignore[misc]
    """In Flower's place: its headers, and one more."""

    def __init__(
        self, private_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey
    ) -> None:
        super().__init__(private_key, public_key)
        self._key = private_key

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Sign the time as Flower does, then all of the request."""

        def signed(context: ProtobufRequestContext) -> httpx.Response:
            request = context.request
            whole = statement(request.headers[TIMESTAMP_HEADER], request.url.path, request.content)
            request.headers[HEADER] = b64encode(sign_message(self._key, whole)).decode()
            response: httpx.Response = call_next(context)
            return response

        answer: httpx.Response = super().intercept(context, signed)
        return answer
