"""JSON that can be written in one way only, with a signature as its last key.

What is signed are the bytes without that key: the line up to `,"signature":`, and a brace.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

__all__ = [
    "SIGNATURE",
    "certificate_of",
    "fingerprint",
    "parsed",
    "public_key",
    "sealed",
    "sha256",
    "signed_by",
]

SIGNATURE = "signature"


def sealed(value: Mapping[str, Any], key: EllipticCurvePrivateKey) -> bytes:
    """A line of JSON with its signature (ECDSA, SHA-384, DER, base64), and a line break."""
    assert SIGNATURE not in value
    body = _canonical(value)
    signature = base64.b64encode(key.sign(body, ECDSA(SHA384())))
    return body[:-1] + b',"signature":"' + signature + b'"}\n'


def parsed(raw: bytes) -> dict[str, Any]:
    """What a sealed line says, `signature` included; whether that is right is not looked at.

    Raises:
        ValueError: for a line that `sealed` does not write, down to the last byte.
    """
    try:
        value = json.loads(raw.decode("ascii"))
        same = isinstance(value, dict) and _canonical(value) + b"\n" == raw
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON as Atoll writes it ({error})") from None
    if not same or list(value)[-1:] != [SIGNATURE]:
        raise ValueError("it is not written as Atoll writes JSON")
    found: dict[str, Any] = value
    return found


def signed_by(value: Mapping[str, Any], key: EllipticCurvePublicKey) -> bool:
    """Whether the signature of a parsed line is this key's."""
    body = _canonical({name: item for name, item in value.items() if name != SIGNATURE})
    try:
        signature = base64.b64decode(value[SIGNATURE], validate=True)
        key.verify(signature, body, ECDSA(SHA384()))
    except (InvalidSignature, TypeError, ValueError):
        return False
    # The last letter before the padding holds bits that decoding drops.
    return bool(base64.b64encode(signature).decode() == value[SIGNATURE])


def certificate_of(pem: bytes) -> x509.Certificate:
    """A certificate from its text.

    Raises:
        ValueError: for other text, and a certificate whose key is not of an elliptic curve.
    """
    try:
        with warnings.catch_warnings():
            # The library only warns of what no authority may write, as a serial number below zero.
            warnings.simplefilter("error")
            found = x509.load_pem_x509_certificate(pem)
        public_key(found)
    except (UnsupportedAlgorithm, Warning, x509.InvalidVersion) as error:
        raise ValueError(str(error)) from None
    return found


def public_key(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    """The key that signatures are checked with; see `certificate_of`."""
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise ValueError("its key is not of an elliptic curve")
    return key


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the certificate, as `openssl x509 -fingerprint -sha256` counts it."""
    return certificate.fingerprint(SHA256()).hex()


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _canonical(value: Mapping[str, Any]) -> bytes:
    """ASCII without blanks, keys in the order that they were given."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
