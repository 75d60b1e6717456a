"""Signatures against openssl, and files that hold no key of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from atoll.certs import fingerprint, load_certificate, load_key, sign, verify
from atoll.errors import CertificateError
from tests.support.x509 import make

DATA = b"what leaves a site"
LOCKED = BestAvailableEncryption(b"reef")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("hospital-a/client.key", "hospital-a/client.pem"),
        ("server/server.key", "server/server.pem"),
    ],
)
def test_openssl_and_we_believe_each_other(federation: Path, key: str, shown: str) -> None:
    (federation / "data").write_bytes(DATA)
    (federation / "signature").write_bytes(sign(federation / key, DATA))
    info = ["openssl", "x509", "-in", federation / shown, "-noout", "-pubkey"]
    (federation / "public").write_bytes(
        subprocess.run(info, capture_output=True, check=True).stdout
    )
    check = ["openssl", "dgst", "-sha384", "-verify", federation / "public", "-signature"]
    said = subprocess.run(
        [*check, federation / "signature", federation / "data"], capture_output=True, check=True
    )
    assert said.stdout == b"Verified OK\n"
    ours = load_key(federation / key)
    (federation / "plain").write_bytes(
        ours.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    made = subprocess.run(
        ["openssl", "dgst", "-sha384", "-sign", federation / "plain", federation / "data"],
        capture_output=True, check=True,
    )  # fmt: skip
    certificate = load_certificate(federation / shown)
    assert verify(certificate, DATA, made.stdout)
    assert verify(ours.public_key(), DATA, made.stdout)


def test_what_is_not_the_signature_of_these_bytes_is_refused(federation: Path) -> None:
    key = load_key(federation / "hospital-a" / "client.key")
    signature = sign(key, DATA)
    assert verify(key.public_key(), DATA, signature)
    other = load_certificate(federation / "hospital-b" / "client.pem")
    assert not verify(other, DATA, signature)
    assert not verify(key.public_key(), DATA + b".", signature)
    for wrong in (b"", b"\x00" * 104, signature[:-1], signature + b"\x00", signature[::-1]):
        assert not verify(key.public_key(), DATA, wrong)
    weaker = key.sign(DATA, ec.ECDSA(hashes.SHA256()))
    assert not verify(key.public_key(), DATA, weaker)


def test_keys_of_other_kinds_sign_nothing() -> None:
    small, large = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    assert not verify(small.public_key(), DATA, small.sign(DATA, ec.ECDSA(hashes.SHA384())))
    assert not verify(make("a", key=large).certificate, DATA, b"x")


def _private(key: object, form: PrivateFormat, lock: object) -> bytes:
    return key.private_bytes(Encoding.PEM, form, lock)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.OpenSSH])
@pytest.mark.parametrize(
    ("key", "why"),
    [
        (rsa.generate_private_key(65537, 2048), "holds a key of another kind than P-384"),
        (ed25519.Ed25519PrivateKey.generate(), "holds a key of another kind than P-384"),
        (ec.generate_private_key(ec.SECP256R1()), "holds a key of another kind than P-384"),
    ],
)
def test_a_key_of_another_kind(tmp_path: Path, key: object, form: PrivateFormat, why: str) -> None:
    path = tmp_path / "k"
    path.write_bytes(_private(key, form, NoEncryption()))
    with pytest.raises(CertificateError, match=why):
        load_key(path)


def test_a_key_that_is_locked(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    path = tmp_path / "k"
    path.write_bytes(_private(key, PrivateFormat.PKCS8, LOCKED))
    with pytest.raises(CertificateError, match="is locked with a passphrase"):
        load_key(path)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_key_that_ssh_locked(tmp_path: Path) -> None:
    made = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "reefs", "-f", tmp_path / "k"]
    subprocess.run(made, check=True)
    with pytest.raises(CertificateError, match="is locked with a passphrase"):
        load_key(tmp_path / "k")


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"-----BEGIN OPENSSH PRI", b"x" * 20_000])
def test_what_is_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(content)
    with pytest.raises(CertificateError, match=r"holds no private key that can be read|is larger"):
        load_key(path)


def test_files_that_are_not_there_or_no_files(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="k cannot be read: no such file"):
        load_key(tmp_path / "k")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(CertificateError, match="is no file"):
            load_certificate(path)


def test_a_fingerprint_is_of_the_public_key(federation: Path) -> None:
    certificate = load_certificate(federation / "hospital-a" / "client.pem")
    found = fingerprint(load_key(federation / "hospital-a" / "client.key").public_key())
    assert found == fingerprint(certificate.public_key())  # type: ignore[arg-type]
    assert found != fingerprint(load_key(federation / "hospital-b" / "client.key").public_key())
