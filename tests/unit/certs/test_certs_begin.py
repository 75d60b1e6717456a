"""What `begin` and `ask` make, as other programs see it: openssl, ssh, TLS over loopback."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from cryptography.x509.oid import ExtensionOID, NameOID

from atoll.certs.begin import ask, begin
from atoll.errors import ConfigError

OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
SSH = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
FILES = {
    "ca/ca.key", "ca/ca.pem",
    "server/ca.pem", "server/server.key", "server/server.pem", "server/revoked.txt",
    "server/clients/hospital-a.pem", "server/clients/hospital-b.pem",
    *(f"{name}/{file}" for name in ("hospital-a", "hospital-b")
      for file in ("ca.pem", "client.key", "client.pem", "request.pem")),
}  # fmt: skip


def _said(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    return f"{done.returncode} {done.stdout}{done.stderr}"


def test_the_files_are_there_and_only_their_owner_looks_into_them(federation: Path) -> None:
    found = {path for path in federation.rglob("*") if path.is_file()}
    assert {str(path.relative_to(federation)) for path in found} == FILES
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
    folders = [federation, *(path for path in federation.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert list(federation.parent.glob(".*")) == []
    same = (federation / "hospital-a" / "client.pem").read_bytes()
    assert (federation / "server" / "clients" / "hospital-a.pem").read_bytes() == same


@OPENSSL
@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["-purpose", "sslserver", "-verify_hostname", "fl.example.org"], "server/server.pem"),
        (["-purpose", "sslserver", "-verify_ip", "10.0.0.5"], "server/server.pem"),
        (["-purpose", "sslserver", "-verify_ip", "::1"], "server/server.pem"),
        (["-purpose", "sslclient"], "hospital-a/client.pem"),
    ],
)
def test_openssl_verifies_strictly(federation: Path, words: list[str], file: str) -> None:
    strict = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile"]
    whole = [*strict, federation / "ca" / "ca.pem", *words, federation / file]
    assert _said(*whole) == f"0 {federation / file}: OK\n"


@OPENSSL
@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["-verify_hostname", "other.example.org"], "server/server.pem"),
        (["-purpose", "sslclient"], "server/server.pem"),
        (["-purpose", "sslserver"], "hospital-a/client.pem"),
        (["-purpose", "crlsign"], "hospital-a/client.pem"),
    ],
)
def test_openssl_refuses_another_use(federation: Path, words: list[str], file: str) -> None:
    strict = ["openssl", "verify", "-x509_strict", "-CAfile", federation / "ca" / "ca.pem"]
    assert _said(*strict, *words, federation / file).startswith("2 ")


@OPENSSL
def test_a_client_cannot_sign_another(federation: Path, tmp_path: Path) -> None:
    own = federation / "hospital-a"
    plain = tmp_path / "plain.key"
    plain.write_bytes(_pkcs8(own / "client.key"))
    new = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hospital-z"]
    assert _said(*new, "-keyout", tmp_path / "z.key", "-out", tmp_path / "z.csr")[0] == "0"
    made = ["openssl", "x509", "-req", "-in", tmp_path / "z.csr", "-CA", own / "client.pem"]
    assert _said(*made, "-CAkey", plain, "-CAcreateserial", "-out", tmp_path / "z.pem")[0] == "0"
    chain = ["-CAfile", own / "ca.pem", "-untrusted", own / "client.pem", tmp_path / "z.pem"]
    assert "invalid CA certificate" in _said("openssl", "verify", *chain)


def _pkcs8(path: Path) -> bytes:
    key = load_ssh_private_key(path.read_bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_flower_reads_the_key_of_a_client(federation: Path) -> None:
    """As `flower-supernode --auth-supernode-private-key` does."""
    key = load_ssh_private_key((federation / "hospital-a" / "client.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP384R1)
    pem = (federation / "hospital-a" / "client.pem").read_bytes()
    assert x509.load_pem_x509_certificate(pem).public_key() == key.public_key()


@SSH
@OPENSSL
def test_ssh_and_openssl_see_one_public_key(federation: Path, tmp_path: Path) -> None:
    own = federation / "hospital-a"
    (tmp_path / "key.pub").write_text(_said("ssh-keygen", "-y", "-f", own / "client.key")[2:])
    exported = _said("ssh-keygen", "-e", "-m", "PKCS8", "-f", tmp_path / "key.pub")
    assert exported == _said("openssl", "x509", "-in", own / "client.pem", "-noout", "-pubkey")


def test_names_and_times(federation: Path) -> None:
    read = {file: x509.load_pem_x509_certificate((federation / file).read_bytes())
            for file in ("ca/ca.pem", "server/server.pem", "hospital-b/client.pem")}  # fmt: skip
    ca, server, client = read.values()
    (name,) = client.subject
    assert (name.oid, name.value) == (NameOID.COMMON_NAME, "hospital-b")
    reached = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert reached.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost"]
    assert [str(ip) for ip in reached.get_values_for_type(x509.IPAddress)] == [
        "10.0.0.5", "127.0.0.1", "::1",
    ]  # fmt: skip
    assert ca.extensions.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS).critical
    now = datetime.now(UTC)
    for certificate, days in ((ca, 3650), (server, 365), (client, 365)):
        assert abs(certificate.not_valid_after_utc - now - timedelta(days=days)).days in (0, -1)
        assert now - certificate.not_valid_before_utc > timedelta(minutes=30)


def _shaken(server: Path, ca: Path, host: str) -> str:
    """A handshake over loopback: what the client says of it."""
    shows = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shows.load_cert_chain(server / "server.pem", server / "server.key")
    trusts = ssl.create_default_context(cafile=ca)
    trusts.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        pool.submit(_answer, listening, shows)
        with socket.create_connection(listening.getsockname(), timeout=10) as line:
            try:
                with trusts.wrap_socket(line, server_hostname=host) as secure:
                    return secure.recv(16).decode()
            except ssl.SSLCertVerificationError as error:
                return error.verify_message


def _answer(listening: socket.socket, context: ssl.SSLContext) -> None:
    line, _ = listening.accept()
    with line:
        line.settimeout(10)
        try:
            with context.wrap_socket(line, server_side=True) as secure:
                secure.sendall(b"welcome")
        except OSError:  # The client hung up.
            return


@pytest.mark.parametrize(
    "host", ["fl.example.org", "10.0.0.5", "localhost", "127.0.0.1", "::1"]
)  # fmt: skip
def test_a_site_accepts_its_server(federation: Path, host: str) -> None:
    assert _shaken(federation / "server", federation / "hospital-a" / "ca.pem", host) == "welcome"


def test_a_site_refuses_another_name_and_another_ca(federation: Path, tmp_path: Path) -> None:
    ca = federation / "hospital-a" / "ca.pem"
    assert "Hostname mismatch" in _shaken(federation / "server", ca, "other.example.org")
    assert "IP address mismatch" in _shaken(federation / "server", ca, "10.0.0.6")
    begin(tmp_path / "other", ["fl.example.org"], [], None)
    refused = _shaken(tmp_path / "other" / "server", ca, "fl.example.org")
    assert "signature failure" in refused or "unable to get local issuer" in refused, refused


def test_a_request_holds_the_key_and_stays_private(tmp_path: Path) -> None:
    mark = ask("hospital-c", tmp_path / "site" / "c")
    found = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "site" / "c").iterdir()}
    assert found == {"client.key": 0o600, "request.pem": 0o600}
    assert (tmp_path / "site" / "c").stat().st_mode & 0o777 == 0o700
    request = x509.load_pem_x509_csr((tmp_path / "site" / "c" / "request.pem").read_bytes())
    key = load_ssh_private_key((tmp_path / "site" / "c" / "client.key").read_bytes(), None)
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    info = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert mark == hashlib.sha256(info).hexdigest()


@pytest.mark.parametrize("taken", ["a file", "a folder", "a key"])
def test_nothing_is_overwritten(taken: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if taken == "a file":
        place.write_text("mine")
    elif taken == "a folder":
        (place / "inside").mkdir(parents=True)
    else:
        ask("hospital-c", place)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    for make in (lambda: ask("hospital-c", place), lambda: begin(place, ["a.org"], [], None)):
        with pytest.raises(ConfigError, match="is there already, and no key is ever overwritten"):
            make()
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_an_empty_folder_is_no_obstacle(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        (tmp_path / "place").mkdir()
        ask("hospital-c", tmp_path / "place")
    finally:
        os.umask(before)
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o700
