"""The folders that a server and a client are started with: whole, in time, or a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from atoll.certs import ClientFiles, ServerFiles, client_files, server_files
from atoll.certs.begin import ask, begin
from atoll.errors import CertificateError
from tests.support.x509 import Made, make


def test_the_folders_of_the_beginning_are_whole(federation: Path) -> None:
    server, client = federation / "server", federation / "hospital-a"
    assert server_files(server) == ServerFiles(
        server / "ca.pem", server / "server.pem", server / "server.key", server
    )
    until = x509.load_pem_x509_certificate((client / "client.pem").read_bytes()).not_valid_after_utc
    assert client_files(client) == ClientFiles(
        client / "ca.pem", client / "client.key", client / "client.pem", "hospital-a", until
    )


def _refused(folder: Path, words: str, *, server: bool = False) -> None:
    with pytest.raises(CertificateError) as caught:
        server_files(folder) if server else client_files(folder)
    assert words in str(caught.value)
    assert caught.value.exit_code == 8


def test_the_whole_federation_is_neither(federation: Path) -> None:
    inside = federation / "server"
    _refused(federation, f"is a whole federation; a server is started with {inside}", server=True)
    _refused(federation, "is a whole federation; a client is started with the folder of its name")


@pytest.mark.parametrize("name", ["ca.pem", "server.pem", "server.key", "revoked.txt", "clients"])
def test_a_server_lacks_a_file(federation: Path, name: str) -> None:
    (federation / "server" / name).rename(federation / "elsewhere")
    _refused(federation / "server", name, server=True)


@pytest.mark.parametrize("name", ["ca.pem", "client.pem", "client.key"])
def test_a_client_lacks_a_file(federation: Path, name: str) -> None:
    (federation / "hospital-a" / name).unlink()
    _refused(federation / "hospital-a", f"{federation / 'hospital-a'} has no {name}; ")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    make = "is no folder; `atoll certs request NAME` makes the folder of a site"
    _refused(tmp_path / "no", make)
    _refused(tmp_path / "no", "is no folder; `atoll certs init DIR --server NAME`", server=True)


def test_a_request_that_nobody_signed_yet(tmp_path: Path) -> None:
    ask("hospital-c", tmp_path / "c")
    _refused(
        tmp_path / "c",
        f"has no client.pem, ca.pem; send {tmp_path / 'c' / 'request.pem'} to the operator of the "
        f"server, who signs it; client.pem and ca.pem that come back belong into {tmp_path / 'c'}",
    )


@pytest.mark.parametrize("name", ["ca.pem", "client.pem", "client.key"])
def test_a_client_with_a_damaged_file(federation: Path, name: str) -> None:
    (federation / "hospital-a" / name).write_text("-----BEGIN nothing")
    _refused(federation / "hospital-a", f"{federation / 'hospital-a' / name} holds no ")


def test_files_of_two_sites(federation: Path) -> None:
    shutil.copy(federation / "hospital-b" / "client.key", federation / "hospital-a" / "client.key")
    _refused(federation / "hospital-a", "client.key is not the key of ")
    shutil.copy(federation / "hospital-b" / "client.key", federation / "server" / "server.key")
    _refused(federation / "server", "server.key is not the key of ", server=True)


def test_files_of_two_federations(federation: Path, tmp_path: Path) -> None:
    begin(tmp_path / "other", ["a.org"], [], None)
    for folder, server in (("hospital-a", False), ("server", True)):
        shutil.copy(tmp_path / "other" / "ca" / "ca.pem", federation / folder / "ca.pem")
        _refused(federation / folder, "was not signed by the CA in ", server=server)


def _ca(federation: Path) -> Made:
    pem, key = ((federation / "ca" / name).read_bytes() for name in ("ca.pem", "ca.key"))
    loaded = load_pem_private_key(key, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return Made(x509.load_pem_x509_certificate(pem), loaded)


@pytest.mark.parametrize(
    ("days", "why"), [((-3, -1), "expired since"), ((1, 2), "not valid before")]
)
def test_out_of_time(federation: Path, days: tuple[int, int], why: str) -> None:
    ca, client, server = _ca(federation), federation / "hospital-a", federation / "server"
    own = load_ssh_private_key((client / "client.key").read_bytes(), None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    (client / "client.pem").write_bytes(make("hospital-a", by=ca, key=own, days=days).pem)
    _refused(client, f"client.pem of hospital-a is {why} ")
    _refused(client, "signs it with `atoll certs sign --renew`")
    shown = load_pem_private_key((server / "server.key").read_bytes(), None)
    assert isinstance(shown, ec.EllipticCurvePrivateKey)
    (server / "server.pem").write_bytes(make("s", by=ca, key=shown, days=days).pem)
    _refused(server, f"`atoll certs renew --server {server} --ca CA` signs it anew", server=True)


def test_a_client_of_a_name_that_is_none(federation: Path) -> None:
    client = federation / "hospital-a"
    own = load_ssh_private_key((client / "client.key").read_bytes(), None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    (client / "client.pem").write_bytes(make("../x", by=_ca(federation), key=own).pem)
    _refused(client, "client.pem is of '../x', which is no name for a site; ")
