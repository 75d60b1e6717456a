"""Who takes part, whatever lies in clients/."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.certs import admitted
from atoll.certs.admission import revoke
from atoll.certs.begin import begin
from atoll.errors import CertificateError
from tests.support.x509 import NOW, Made, make


@pytest.fixture
def ca(federation: Path) -> Made:
    """The federation's CA, read without Atoll."""
    pem, key = ((federation / "ca" / name).read_bytes() for name in ("ca.pem", "ca.key"))
    loaded = load_pem_private_key(key, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return Made(x509.load_pem_x509_certificate(pem), loaded)


def _put(federation: Path, name: str, content: bytes) -> None:
    (federation / "server" / "clients" / f"{name}.pem").write_bytes(content)


def _why(federation: Path, name: str) -> str:
    """Why one is refused; the two of the beginning take part all the same."""
    found = admitted(federation / "server")
    assert found.members.keys() >= {"hospital-a", "hospital-b"} - {name}
    assert name not in found.members
    return found.refused[name]


def test_those_of_the_beginning_take_part(federation: Path) -> None:
    found = admitted(federation / "server")
    assert found.members.keys() == {"hospital-a", "hospital-b"}
    assert found.refused == {}
    for name, member in found.members.items():
        pem = (federation / name / "client.pem").read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        assert member.name == name
        assert member.public_key == certificate.public_key()
        assert member.expires == certificate.not_valid_after_utc


def test_any_certificate_of_the_ca_is_one_of_its_clients(federation: Path, ca: Made) -> None:
    """Also one that another program signed."""
    made = make("hospital-c", by=ca)
    _put(federation, "hospital-c", made.pem)
    assert admitted(federation / "server").members["hospital-c"].public_key == made.key.public_key()


def test_who_leaves_the_folder_leaves(federation: Path) -> None:
    (federation / "server" / "clients" / "hospital-a.pem").unlink()
    assert admitted(federation / "server").members.keys() == {"hospital-b"}


@pytest.mark.parametrize(
    ("days", "why"),
    [((-3, -1), f"expired since {NOW - timedelta(days=1):%Y-%m-%d %H:%M} UTC"),
     ((1, 3), f"not valid before {NOW + timedelta(days=1):%Y-%m-%d %H:%M} UTC")],
)  # fmt: skip
def test_out_of_time(federation: Path, ca: Made, days: tuple[int, int], why: str) -> None:
    _put(federation, "hospital-c", make("hospital-c", by=ca, days=days).pem)
    assert _why(federation, "hospital-c") == why


def test_a_certificate_expires_while_the_federation_runs(federation: Path, ca: Made) -> None:
    _put(federation, "hospital-c", make("hospital-c", by=ca, days=(-1, 2)).pem)
    end = NOW + timedelta(days=2)
    assert "hospital-c" in admitted(federation / "server", now=end).members
    late = admitted(federation / "server", now=end + timedelta(seconds=1))
    assert late.refused["hospital-c"].startswith("expired since ")
    after = admitted(federation / "server", now=NOW + timedelta(days=4000))
    assert after.members == {}


def test_nobody_outlives_the_ca(federation: Path, ca: Made) -> None:
    _put(federation, "hospital-c", make("hospital-c", by=ca, days=(-1, 9000)).pem)
    until = admitted(federation / "server").members["hospital-c"].expires
    assert until == ca.certificate.not_valid_after_utc


def test_a_revoked_key_counts_no_more_under_any_certificate(federation: Path, ca: Made) -> None:
    made = make("hospital-c", by=ca)
    _put(federation, "hospital-c", made.pem)
    assert revoke("hospital-c", federation / "server")
    assert _why(federation, "hospital-c").startswith("revoked 20")
    _put(federation, "hospital-c", make("hospital-c", by=ca, key=made.key).pem)
    assert _why(federation, "hospital-c").startswith("revoked 20")
    _put(federation, "hospital-c", make("hospital-c", by=ca).pem)
    assert "hospital-c" in admitted(federation / "server").members


def test_a_stranger_is_refused(federation: Path, ca: Made, tmp_path: Path) -> None:
    begin(tmp_path / "other", ["a.org"], ["hospital-c"], None)
    shutil.copy(
        tmp_path / "other" / "hospital-c" / "client.pem",
        federation / "server" / "clients" / "hospital-c.pem",
    )
    assert _why(federation, "hospital-c") == "not signed by this CA"
    _put(federation, "hospital-c", make("hospital-c").pem)
    assert _why(federation, "hospital-c") == "not signed by this CA"
    # One that says it is of this CA, and that a client signed.
    forger = make("Atoll federation CA", key=make("hospital-a").key)
    _put(federation, "hospital-c", make("hospital-c", by=forger).pem)
    assert _why(federation, "hospital-c") == "not signed by this CA"


def test_a_name_is_that_of_the_certificate(federation: Path) -> None:
    clients = federation / "server" / "clients"
    shutil.copy(clients / "hospital-a.pem", clients / "hospital-c.pem")
    why = "its certificate is for another name, hospital-a"
    assert _why(federation, "hospital-c") == why


def test_one_key_is_one_site(federation: Path, ca: Made) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    _put(federation, "hospital-c", make("hospital-c", by=ca, key=key).pem)
    _put(federation, "hospital-d", make("hospital-d", by=ca, key=key).pem)
    assert _why(federation, "hospital-d") == "has the key of hospital-c; nobody is two sites"


def test_only_keys_and_uses_of_clients_count(federation: Path, ca: Made) -> None:
    other = {
        "a": make("a", by=ca, key=rsa.generate_private_key(65537, 2048)),
        "b": make("b", by=ca, key=ec.generate_private_key(ec.SECP256R1())),
        "c": make("c", by=ca, usage=ExtendedKeyUsageOID.SERVER_AUTH),
    }
    for name, made in other.items():
        _put(federation, name, made.pem)
    shutil.copy(federation / "server" / "server.pem", federation / "server" / "clients" / "d.pem")
    for name in "abcd":
        assert _why(federation, name) == "not a certificate for a client"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("empty", "no certificate that can be read"),
        ("garbage", "no certificate that can be read"),
        ("large", "hospital-c.pem is larger than any key or certificate"),
        ("folder", "hospital-c.pem is no file"),
        ("pipe", "hospital-c.pem is no file"),
        ("device", "hospital-c.pem is no file"),
        ("loop", "hospital-c.pem cannot be read: "),
        ("key", "no certificate that can be read"),
    ],
)
def test_a_hostile_file_is_only_refused(federation: Path, kind: str, why: str) -> None:
    path = federation / "server" / "clients" / "hospital-c.pem"
    content = {"empty": b"", "garbage": os.urandom(999), "large": b"-----BEGIN" * 9_999_999,
               "key": (federation / "server" / "server.key").read_bytes()}  # fmt: skip
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path.name)
    assert why in _why(federation, "hospital-c")


@pytest.mark.parametrize("name", ["ca", "no name", ".hidden", "line\nbreak", "x" * 65, "\udcff"])
def test_a_file_of_a_name_that_no_site_has(federation: Path, name: str) -> None:
    shutil.copy(
        federation / "hospital-a" / "client.pem", federation / "server" / "clients" / f"{name}.pem"
    )
    found = admitted(federation / "server")
    assert found.members.keys() == {"hospital-a", "hospital-b"}
    ((shown, why),) = found.refused.items()
    assert why == "a file whose name no site can have"
    assert shown.isascii()
    assert shown.isprintable()


def test_other_files_are_left_alone(federation: Path) -> None:
    for name in ("README", ".hospital-c.pem.x.partial", "hospital-c.pem~"):
        (federation / "server" / "clients" / name).write_text("x")
    assert admitted(federation / "server").refused == {}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_never_makes_another_member(federation: Path, data: st.DataObject) -> None:
    content = bytearray((federation / "hospital-a" / "client.pem").read_bytes())
    key = x509.load_pem_x509_certificate(bytes(content)).public_key()
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _put(federation, "hospital-a", bytes(content))
    found = admitted(federation / "server")
    assert found.members.keys() | found.refused.keys() == {"hospital-a", "hospital-b"}
    assert "hospital-a" in found.refused or found.members["hospital-a"].public_key == key


@pytest.fixture(params=["ca.pem", "revoked.txt", "clients"])
def lost(request: pytest.FixtureRequest, federation: Path) -> Path:
    """A file of the server's own that is not there."""
    path = federation / "server" / request.param
    path.rename(federation / "elsewhere")
    return path


def test_without_the_servers_own_files_nobody_is_told_from_anybody(lost: Path) -> None:
    with pytest.raises(CertificateError, match=f"{lost} cannot be read"):
        admitted(lost.parent)


@pytest.mark.parametrize("line", ["hospital-a", "ab" * 32, f"{'AB' * 32} a b", "\x00"])
def test_a_list_that_is_not_understood_lets_nobody_in(federation: Path, line: str) -> None:
    path = federation / "server" / "revoked.txt"
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(
        CertificateError, match=r"revoked\.txt:4 is no line of `atoll certs revoke`"
    ):
        admitted(federation / "server")
