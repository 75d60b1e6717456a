"""Keys on the curve P-384: making, keeping, signing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeGuard

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from atoll.certs.pem import read_pem
from atoll.errors import CertificateError

__all__ = ["fingerprint", "is_ours", "key_pem", "key_ssh", "load_key", "new_key", "sign", "verify"]

_ECDSA = ec.ECDSA(hashes.SHA384())


def new_key() -> ec.EllipticCurvePrivateKey:
    """A private key, from the operating system's entropy."""
    return ec.generate_private_key(ec.SECP384R1())


def is_ours(key: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    """Whether a public key is of the kind that the federation uses."""
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as servers of TLS read it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_ssh(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as Flower's SuperNode reads it, in the format of OpenSSH."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a file of either format.

    Raises:
        CertificateError: when there is none, it is locked, or it is of another kind.
    """
    content = read_pem(path)
    load = load_ssh_private_key if b"BEGIN OPENSSH" in content else load_pem_private_key
    try:
        key = load(content, password=None)
    except TypeError as error:
        raise CertificateError(
            f"{path} is locked with a passphrase, which nobody types at a start; keep a key in a "
            "folder that only its owner reads"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{path} holds no private key that can be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not is_ours(key.public_key()):
        raise CertificateError(
            f"{path} holds a key of another kind than P-384; make one with `atoll certs request`"
        )
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key (its SubjectPublicKeyInfo), in hexadecimal digits."""
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def sign(key: Path | ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ECDSA with P-384 and SHA-384, in DER.

    Raises:
        CertificateError: when the file holds no such key.
    """
    private = load_key(key) if isinstance(key, Path) else key
    return private.sign(data, _ECDSA)


def verify(
    signer: ec.EllipticCurvePublicKey | x509.Certificate, data: bytes, signature: bytes
) -> bool:
    """Whether it is this signer's signature of these bytes."""
    key = signer.public_key() if isinstance(signer, x509.Certificate) else signer
    if not is_ours(key):
        return False
    try:
        key.verify(signature, data, _ECDSA)
    except InvalidSignature:
        return False
    return True
