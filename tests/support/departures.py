"""Sites with keys of their own, and records of what left them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from atoll.egress.record import Departure, Egress

__all__ = ["Site", "certificate_for", "departure", "open_record", "recorded", "site"]


@dataclass(frozen=True)
class Site:
    """A site's name, key and certificate."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


@cache
def site(name: str, number: int = 0) -> Site:
    """A site with a certificate that it signed itself; another number is another key."""
    key = ec.generate_private_key(ec.SECP384R1())
    return Site(name, key, certificate_for(name, key))


def certificate_for(
    name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .sign(key, SHA384())
    )


def open_record(folder: Path, who: Site, *, large: int = 2**20) -> Egress:
    return Egress.open(folder, site=who.name, key=who.key, certificate_pem=who.pem, large=large)


def departure(number: int, run: str = "finetune") -> Departure:
    """A message without tensors."""
    return Departure(run, number // 2, number, "fedavg", None, b"message %d" % number)


def recorded(folder: Path, numbers: Sequence[int], *, large: int = 2**20) -> Site:
    """A record of messages of `hospital-a`."""
    who = site("hospital-a")
    with open_record(folder, who, large=large) as egress:
        for number in numbers:
            egress.append(departure(number))
    return who
