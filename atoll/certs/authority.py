"""The CA of a federation: what it signs, and for how long."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from atoll.certs.keys import load_key, new_key
from atoll.certs.pem import load_certificate, moment
from atoll.errors import CertificateError, ConfigError

__all__ = [
    "CA_DAYS",
    "Authority",
    "client_certificate",
    "load_authority",
    "named",
    "new_authority",
    "server_certificate",
]

CA_DAYS, DAYS = 3650, 365
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Processes of the server talk to each other under its certificate too."""
_EARLY = timedelta(hours=1)
"""The clock of a site may be behind ours."""


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate, and the key that signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def new_authority() -> Authority:
    """A CA that signs servers and clients, and no other CA."""
    key, now = new_key(), _now()
    builder = _builder(named("Atoll federation CA"), key.public_key(), now)
    builder = builder.issuer_name(named("Atoll federation CA"))
    builder = builder.not_valid_after(now + timedelta(days=CA_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    return Authority(builder.sign(key, hashes.SHA384()), key)


def load_authority(folder: Path) -> Authority:
    """The CA in a folder.

    Raises:
        CertificateError: when it is not there, damaged, or past its time.
    """
    if not (folder / "ca.key").is_file():
        raise CertificateError(
            f"{folder} holds no ca.key; name the folder ca/ that `atoll certs init` made"
        )
    found = Authority(load_certificate(folder / "ca.pem"), load_key(folder / "ca.key"))
    if found.certificate.public_key() != found.key.public_key():
        raise CertificateError(f"{folder}/ca.key is not the key of {folder}/ca.pem")
    until = found.certificate.not_valid_after_utc
    if _now() > until:
        raise CertificateError(
            f"the CA in {folder} has expired since {moment(until)}; make a new federation with "
            "`atoll certs init`"
        )
    return found


def server_certificate(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    days: int | None = None,
) -> x509.Certificate:
    """For a server that is reached under these host names and addresses, and over loopback.

    Raises:
        ConfigError: when it would outlive the CA.
    """
    every = dict.fromkeys((*names, *LOOPBACK))
    return _signed(
        authority,
        _builder(named("Atoll server"), key, _now())
        .add_extension(x509.SubjectAlternativeName(list(map(_reached, every))), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False),
        days,
    )


def client_certificate(
    authority: Authority, key: ec.EllipticCurvePublicKey, name: str, days: int | None = None
) -> x509.Certificate:
    """For the site of this name.

    Raises:
        ConfigError: when it would outlive the CA.
    """
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = _builder(named(name), key, _now()).add_extension(usage, critical=False)
    return _signed(authority, builder, days)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def named(name: str) -> x509.Name:
    """A subject of this common name, and nothing else."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _reached(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(
    authority: Authority, builder: x509.CertificateBuilder, days: int | None
) -> x509.Certificate:
    """For so many days; where nobody said how many, a year or what is left of the CA's time."""
    last, until = authority.certificate.not_valid_after_utc, _now() + timedelta(days=days or DAYS)
    if days is not None and until > last + timedelta(days=1):
        raise ConfigError(f"--days is {days}, but the CA expires on {moment(last)}; lower it")
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return (
        builder.issuer_name(authority.certificate.subject)
        .not_valid_after(min(until, last))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value),
            critical=False,
        )
        .sign(authority.key, hashes.SHA384())
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    """A CA's key signs certificates; another's signs messages, those of TLS among them."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
