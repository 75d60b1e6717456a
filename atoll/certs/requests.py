"""What a site sends to the operator: its name and public key, signed by the private one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from atoll.certs.authority import named
from atoll.certs.keys import is_ours
from atoll.certs.names import name_fault
from atoll.certs.pem import common_name, read_pem
from atoll.errors import CertificateError

__all__ = ["Asked", "load_request", "new_request"]


@dataclass(frozen=True)
class Asked:
    """A site that asks to take part."""

    name: str
    key: ec.EllipticCurvePublicKey


def new_request(key: ec.EllipticCurvePrivateKey, name: str) -> x509.CertificateSigningRequest:
    """A request for the site of this name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(named(name))
    return builder.sign(key, hashes.SHA384())


def load_request(path: Path) -> Asked:
    """The request in a file; whatever else it asks for is left aside.

    Raises:
        CertificateError: when it is damaged, not signed by its own key, of another kind of key, or
            of a name that no site can have.
    """
    content = read_pem(path)
    try:
        request = x509.load_pem_x509_csr(content)
        whole, key = request.is_signature_valid, request.public_key()
        name = common_name(request.subject)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"{path} holds no request that can be read; give the request.pem that `atoll certs "
            "request` wrote"
        ) from error
    if not whole:
        raise CertificateError(
            f"{path} is not signed by the key that it names: it was changed on its way, or whoever "
            "made it does not have that key"
        )
    if not is_ours(key):
        raise CertificateError(
            f"{path} is for a key of another kind than P-384; the site makes one with `atoll certs "
            "request`"
        )
    if fault := name_fault(name):
        raise CertificateError(f"{path} is for {name!r}, which {fault}")
    return Asked(name, key)
