"""Who signs in secure sums: a site's own Ed25519 key, which the key of its certificate vouches for.

A server passes these claims on, and can make none up: each is held against the CA that its reader
has in its own folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, Field

from atoll.certs.files import ClientFiles
from atoll.certs.keys import is_ours, sign, verify
from atoll.certs.pem import common_name, issued, load_certificate, out_of_time
from atoll.disk.files import explained, write_bytes
from atoll.errors import CertificateError
from atoll.secagg import Identity, claim, roster_verifier
from atoll.secagg.keys import KEY, Verifier

__all__ = ["Claimed", "claimed", "identity_in", "verifier_of"]

Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$", max_length=1024)]


class Claimed(BaseModel):
    """public: of the Ed25519 key.   signature: of the certificate's key, over `claim`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    public: Annotated[Hex, Field(min_length=2 * KEY, max_length=2 * KEY)]
    signature: Hex
    certificate: Annotated[str, Field(max_length=16_384)]


def identity_in(path: Path) -> Identity:
    """The identity in a file that its owner alone may read; made where there is none.

    Raises:
        CertificateError: when the file is not one that this wrote.
    """
    if not path.exists():
        identity = Identity.new()
        write_bytes(path, identity.private, mode=0o600)
        return identity
    with explained(path):
        raw = path.read_bytes()
    if len(raw) != KEY:
        raise CertificateError(
            f"{path} is no key of this site: it was changed or cut; remove it, and a new one is "
            "made for federations that begin after that"
        )
    return Identity(raw)


def claimed(identity: Identity, files: ClientFiles) -> Claimed:
    """What a site tells of its identity."""
    certificate = load_certificate(files.certificate)
    signature = sign(files.key, claim(files.name, identity.public))
    return Claimed(
        public=identity.public.hex(),
        signature=signature.hex(),
        certificate=certificate.public_bytes(Encoding.PEM).decode(),
    )


def verifier_of(claims: Mapping[str, Claimed], ca: Path) -> Verifier:
    """Signatures are held against identities whose certificates this CA signed.

    Raises:
        CertificateError: with the first claim that is not of the site that it names.
    """
    signer, now = load_certificate(ca), datetime.now(UTC)
    for name, one in claims.items():
        if why := _fault(name, one, signer, now):
            raise CertificateError(
                f"the identity of {name} in secure sums cannot be trusted: {why}; nothing is "
                "summed with it"
            )
    return roster_verifier({name: bytes.fromhex(one.public) for name, one in claims.items()})


def _fault(name: str, one: Claimed, ca: x509.Certificate, now: datetime) -> str | None:
    try:
        certificate = x509.load_pem_x509_certificate(one.certificate.encode())
        key = certificate.public_key()
    except ValueError:
        return "its certificate cannot be read"
    if common_name(certificate.subject) != name or not issued(certificate, ca):
        return "its certificate is of another name, or not of the CA in this site's folder"
    if why := out_of_time(certificate, ca, now):
        return f"its certificate is {why}"
    if not is_ours(key):
        return "its certificate has a key of another kind"
    said = claim(name, bytes.fromhex(one.public))
    vouched = verify(key, said, bytes.fromhex(one.signature))
    return None if vouched else "the key of its certificate has not signed it"
