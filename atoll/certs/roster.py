"""Who takes part now: the certificates in `server/clients/`, less those that do not count."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from atoll.certs.keys import fingerprint, is_ours
from atoll.certs.names import name_fault
from atoll.certs.pem import common_name, expiry, issued, load_certificate, out_of_time, read_pem
from atoll.errors import CertificateError

__all__ = ["REVOKED", "Admitted", "Member", "admitted", "revocations"]

REVOKED = """\
# Keys that take part no longer, one a line: SHA-256 of the public key, name, since when.
# `atoll certs revoke` adds to them.
"""
_LINE = re.compile(r"([0-9a-f]{64}) (\S+) (\S+)")


@dataclass(frozen=True)
class Member:
    """A site that takes part: its roster name and public key, and until when."""

    name: str
    public_key: ec.EllipticCurvePublicKey
    expires: datetime


@dataclass(frozen=True)
class Admitted:
    """Who takes part, and who does not and why; both by name."""

    members: Mapping[str, Member]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class _Held:
    """A client's certificate with a good signature, and what it says."""

    certificate: x509.Certificate
    name: str
    key: ec.EllipticCurvePublicKey
    mark: str


def admitted(folder: Path, *, now: datetime | None = None) -> Admitted:
    """Who takes part in a server's federation, as its folder says at this moment.

    A file in clients/ can only be refused, whatever it holds. One that did not change since the
    last call is not examined again, apart from its time.

    Raises:
        CertificateError: when the server's own ca.pem, revoked.txt or clients/ cannot be read, so
            that nobody can be told from anybody.
    """
    ca, content = load_certificate(folder / "ca.pem"), read_pem(folder / "ca.pem")
    revoked, now = revocations(folder), now or datetime.now(UTC)
    members: dict[str, Member] = {}
    refused: dict[str, str] = {}
    holders: dict[str, str] = {}
    for path in _files(folder / "clients"):
        held = _held(path, content)
        if isinstance(held, str):
            refused[ascii(path.stem)[1:-1]] = held
        elif held.mark in revoked:
            refused[held.name] = f"revoked {revoked[held.mark]}"
        elif why := out_of_time(held.certificate, ca, now):
            refused[held.name] = why
        elif held.mark in holders:
            refused[held.name] = f"has the key of {holders[held.mark]}; nobody is two sites"
        else:
            holders[held.mark] = held.name
            members[held.name] = Member(held.name, held.key, expiry(held.certificate, ca))
    return Admitted(MappingProxyType(members), MappingProxyType(refused))


def revocations(folder: Path) -> dict[str, str]:
    """Since when each revoked key is, by its fingerprint.

    Raises:
        CertificateError: when the list is missing or has a line that is not understood; without it
            those whom it names would take part again.
    """
    path, found = folder / "revoked.txt", dict[str, str]()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"{path} cannot be read ({error}); without it nobody can be refused. Restore it, or "
            "make an empty file where nobody was ever revoked"
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise CertificateError(
                f"{path}:{number} is no line of `atoll certs revoke`; restore it or take it away"
            )
        found[parts[1]] = parts[3]
    return found


def _files(clients: Path) -> list[Path]:
    try:
        return sorted(path for path in clients.iterdir() if path.suffix == ".pem")
    except OSError as error:
        raise CertificateError(f"{clients} cannot be read: {error.strerror}") from error


def _held(path: Path, ca: bytes) -> _Held | str:
    """The certificate of a file, or why it is none that could ever count."""
    if name_fault(path.stem):
        return "a file whose name no site can have"
    try:
        held = _examined(read_pem(path), ca)
    except CertificateError as error:
        return str(error)
    if isinstance(held, _Held) and held.name != path.stem:
        return f"its certificate is for another name, {held.name}"
    return held


@lru_cache(maxsize=10_000)
def _examined(content: bytes, ca: bytes) -> _Held | str:
    """What does not change with time: a signature takes a millisecond to check, of each site."""
    try:
        certificate = x509.load_pem_x509_certificate(content)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        key, name = certificate.public_key(), common_name(certificate.subject)
    except Exception:  # Whatever a parser of hostile bytes may come upon.
        return "no certificate that can be read"
    if not issued(certificate, x509.load_pem_x509_certificate(ca)):
        return "not signed by this CA"
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage or not is_ours(key) or name_fault(name):
        return "not a certificate for a client"
    return _Held(certificate, name, key, fingerprint(key))
