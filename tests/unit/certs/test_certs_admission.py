"""Letting a site in and putting it out."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from atoll.certs import Member, admitted, client_files, load_key, server_files
from atoll.certs.admission import admit, renew_server, revoke
from atoll.certs.begin import ask, begin
from atoll.disk.lock import alone
from atoll.errors import AtollError, CertificateError, ConfigError, RunError


def _admit(federation: Path, request: Path, *, out: Path | None = None, renew: bool = False,
           days: int | None = None) -> Member:  # fmt: skip
    ca, server = federation / "ca", federation / "server"
    return admit(
        request, ca=ca, server=server, out=out or request.parent, days=days, renew=renew
    )  # fmt: skip


def _request(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Path:
    """A request that another program made."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    folder.mkdir(exist_ok=True)
    (folder / "request.pem").write_bytes(made.public_bytes(Encoding.PEM))
    return folder / "request.pem"


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_site_is_let_in_put_out_and_let_in_with_another_key(
    federation: Path, tmp_path: Path
) -> None:
    server, site = federation / "server", tmp_path / "c"
    ask("hospital-c", site)
    member = _admit(federation, site / "request.pem")
    found = client_files(site)
    assert (found.name, found.expires) == ("hospital-c", member.expires)
    key = load_key(found.key).public_key()
    assert admitted(server).members["hospital-c"].public_key == member.public_key == key
    assert revoke("hospital-c", server)
    assert not revoke("hospital-c", server)
    assert "hospital-c" in admitted(server).refused
    with pytest.raises(CertificateError, match="this key of hospital-c was revoked 20"):
        _admit(federation, site / "request.pem", renew=True)
    ask("hospital-c", tmp_path / "again")
    _admit(federation, tmp_path / "again" / "request.pem")
    assert admitted(server).members.keys() == {"hospital-a", "hospital-b", "hospital-c"}
    assert revoke("hospital-c", server)
    assert len((server / "revoked.txt").read_text().splitlines()) == 4


def test_a_name_is_taken_until_it_is_renewed(federation: Path, tmp_path: Path) -> None:
    request = federation / "hospital-a" / "request.pem"
    with pytest.raises(CertificateError, match=r"hospital-a is admitted to .* already; --renew"):
        _admit(federation, request)
    before = admitted(federation / "server").members["hospital-a"]
    after = _admit(federation, request, renew=True, days=700)
    assert after.public_key == before.public_key
    assert (after.expires - before.expires).days in (334, 335)
    ask("hospital-a", tmp_path / "new")
    changed = _admit(federation, tmp_path / "new" / "request.pem", renew=True)
    assert changed.public_key != before.public_key
    assert admitted(federation / "server").members["hospital-a"] == changed


def test_names_and_keys_of_others(federation: Path, tmp_path: Path) -> None:
    key = load_key(federation / "hospital-a" / "client.key")
    other = _request(tmp_path / "c", "hospital-c", key)
    with pytest.raises(CertificateError, match="hospital-c asks with the key of hospital-a"):
        _admit(federation, other)
    ask("Hospital-A", tmp_path / "d")
    with pytest.raises(CertificateError, match="Hospital-A differs from hospital-a in capitals"):
        _admit(federation, tmp_path / "d" / "request.pem")


@pytest.mark.parametrize("name", ["../../ca/ca", "ca", "Server", ".x", "-x", "a b", "é", "a\n"])
def test_a_request_for_a_name_that_no_site_has(federation: Path, tmp_path: Path, name: str) -> None:
    before = _files(federation)
    request = _request(tmp_path / "c", name, ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(CertificateError, match=r"request\.pem is for '.*', which is "):
        _admit(federation, request)
    assert _files(federation) == before
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["request.pem"]


def test_requests_that_are_not_of_ours(federation: Path, tmp_path: Path) -> None:
    for number, key in enumerate(
        (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1()))
    ):
        request = _request(tmp_path / str(number), "hospital-c", key)
        with pytest.raises(CertificateError, match="a key of another kind than P-384"):
            _admit(federation, request)
    request.write_text("nothing")
    for wrong in (request, federation / "ca" / "ca.pem", federation / "ca" / "ca.key"):
        with pytest.raises(CertificateError, match="holds no request that can be read"):
            _admit(federation, wrong)


def test_a_request_that_was_changed_on_its_way(federation: Path, tmp_path: Path) -> None:
    ask("hospital-c", tmp_path / "c")
    request = tmp_path / "c" / "request.pem"
    made = x509.load_pem_x509_csr(request.read_bytes()).public_bytes(Encoding.DER)
    changed = x509.load_der_x509_csr(made.replace(b"hospital-c", b"hospital-d"))
    request.write_bytes(changed.public_bytes(Encoding.PEM))
    with pytest.raises(CertificateError, match="is not signed by the key that it names"):
        _admit(federation, request)


def test_the_ca_is_that_of_the_server(federation: Path, tmp_path: Path) -> None:
    ask("hospital-c", tmp_path / "c")
    begin(tmp_path / "other", ["a.org"], [], None)
    request, server = tmp_path / "c" / "request.pem", federation / "server"
    for ca, why in ((tmp_path / "other" / "ca", "trusts another CA than that of"),
                    (federation / "server", "holds no ca.key; name the folder ca/")):  # fmt: skip
        with pytest.raises(CertificateError, match=why):
            admit(request, ca=ca, server=server, out=tmp_path / "c", days=None, renew=False)
    shutil.copy(tmp_path / "other" / "ca" / "ca.key", federation / "ca" / "ca.key")
    with pytest.raises(CertificateError, match=r"ca\.key is not the key of .*ca\.pem"):
        _admit(federation, request)


def test_a_folder_with_files_of_others_is_left_as_it_is(federation: Path, tmp_path: Path) -> None:
    ask("hospital-c", tmp_path / "c")
    begin(tmp_path / "other", ["a.org"], ["hospital-c"], None)
    request = tmp_path / "c" / "request.pem"
    before = _files(tmp_path)
    for out, why in (
        (federation / "hospital-a", "holds the certificate of hospital-a"),
        (tmp_path / "other" / "hospital-c", "holds the CA of another federation"),
    ):
        with pytest.raises(ConfigError, match=why):
            _admit(federation, request, out=out)
    assert _files(tmp_path) == before
    _admit(federation, request, out=tmp_path / "back")
    assert {path.name for path in (tmp_path / "back").iterdir()} == {"ca.pem", "client.pem"}
    assert [path.name for path in sorted((tmp_path / "c").iterdir())] == [
        "client.key",
        "request.pem",
    ]


def test_a_site_that_cannot_be_answered_is_not_let_in(federation: Path, tmp_path: Path) -> None:
    ask("hospital-c", tmp_path / "c")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        _admit(federation, tmp_path / "c" / "request.pem", out=tmp_path / "file" / "c")
    assert "hospital-c" not in admitted(federation / "server").members


def test_nobody_is_let_in_for_longer_than_the_ca(federation: Path, tmp_path: Path) -> None:
    ask("hospital-c", tmp_path / "c")
    with pytest.raises(ConfigError, match=r"--days is 3660, but the CA expires on 20.*; lower it"):
        _admit(federation, tmp_path / "c" / "request.pem", days=3660)
    member = _admit(federation, tmp_path / "c" / "request.pem", days=3651)
    ca = x509.load_pem_x509_certificate((federation / "ca" / "ca.pem").read_bytes())
    made = x509.load_pem_x509_certificate((tmp_path / "c" / "client.pem").read_bytes())
    assert member.expires == made.not_valid_after_utc == ca.not_valid_after_utc


def test_a_name_that_nobody_has_is_not_revoked(federation: Path) -> None:
    server = federation / "server"
    with pytest.raises(ConfigError, match=r"no site 'hospital-x' .* there is hospital-[ab], "):
        revoke("hospital-x", server)
    for name in ("../server", "", "ca"):
        with pytest.raises(ConfigError, match="was admitted to "):
            revoke(name, server)
    with pytest.raises(CertificateError, match=r"is not the folder of a server: .*; did you mean"):
        revoke("hospital-a", federation)


def test_two_at_once_lose_nothing(federation: Path) -> None:
    server = federation / "server"
    with alone(server), pytest.raises(RunError, match="another `atoll certs` writes into "):
        revoke("hospital-a", server)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(revoke, name, server) for name in ("hospital-a", "hospital-b")]
    done = [not isinstance(each.exception(), AtollError) for each in asked]
    assert len(admitted(server).refused) == sum(done) >= 1


def test_the_server_is_renewed_over_its_key(federation: Path) -> None:
    server = federation / "server"
    key, before = (server / "server.key").read_bytes(), (server / "server.pem").read_bytes()

    def reached() -> list[str]:
        made = x509.load_pem_x509_certificate((server / "server.pem").read_bytes())
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [*names.get_values_for_type(x509.DNSName),
                *map(str, names.get_values_for_type(x509.IPAddress))]  # fmt: skip

    until = renew_server(server, ca=federation / "ca", names=[], days=30)
    made = x509.load_pem_x509_certificate((server / "server.pem").read_bytes())
    assert (server / "server.pem").read_bytes() != before
    assert made.not_valid_after_utc == until
    assert reached() == ["fl.example.org", "localhost", "10.0.0.5", "127.0.0.1", "::1"]
    renew_server(server, ca=federation / "ca", names=["new.example.org"], days=None)
    assert reached() == ["new.example.org", "localhost", "127.0.0.1", "::1"]
    assert (server / "server.key").read_bytes() == key
    server_files(server)
