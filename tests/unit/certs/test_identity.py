"""Who signs in secure sums: claims that a server passes on, and cannot make up."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from atoll.certs import client_files
from atoll.certs.begin import begin
from atoll.certs.identity import Claimed, claimed, identity_in, verifier_of
from atoll.errors import CertificateError
from atoll.secagg import Identity

SITES = ["ada", "bob"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("certs")
    begin(found / "fed", ["localhost"], SITES, None)
    begin(found / "other", ["localhost"], SITES, None)
    return found


def _claims(folder: Path, fed: str = "fed") -> dict[str, tuple[Identity, Claimed]]:
    found = {}
    for name in SITES:
        identity = identity_in(folder / f"{fed}-{name}.key")
        found[name] = identity, claimed(identity, client_files(folder / fed / name))
    return found


def test_signatures_of_sites_are_held_against_their_own_keys(folder: Path) -> None:
    found = _claims(folder)
    ca = client_files(folder / "fed" / "bob").ca
    verify = verifier_of({name: one for name, (_, one) in found.items()}, ca)
    signature = found["ada"][0].sign(b"words")
    assert verify("ada", b"words", signature)
    assert not verify("bob", b"words", signature)
    assert not verify("ada", b"other", signature)
    assert not verify("eve", b"words", signature)


def test_an_identity_stays_and_is_its_owners_alone(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    first = identity_in(path)
    assert identity_in(path).public == first.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"short")
    with pytest.raises(CertificateError, match="no key of this site"):
        identity_in(path)


@pytest.mark.parametrize("made_up", ["key", "signature", "certificate", "name", "ca", "garbage"])
def test_a_server_can_make_nobody_up(made_up: str, folder: Path) -> None:
    found = _claims(folder)
    ca = client_files(folder / "fed" / "ada").ca
    true, bob = found["ada"][1], found["bob"][1]
    claims = {
        "key": {"ada": true.model_copy(update={"public": Identity.new().public.hex()})},
        "signature": {"ada": true.model_copy(update={"signature": bob.signature})},
        "certificate": {"ada": true.model_copy(update={"certificate": bob.certificate})},
        "name": {"ada": bob},
        "ca": {"ada": _claims(folder, "other")["ada"][1]},
        "garbage": {"ada": true.model_copy(update={"certificate": "-----BEGIN"})},
    }
    with pytest.raises(CertificateError, match="the identity of ada in secure sums cannot be"):
        verifier_of(claims[made_up], ca)


@pytest.mark.parametrize(
    "update", [{"public": "00"}, {"public": "zz" * 32}, {"signature": "0"}, {"certificate": 3}]
)
def test_a_claim_has_one_form(update: dict[str, object], folder: Path) -> None:
    value = {**_claims(folder)["ada"][1].model_dump(), **update}
    with pytest.raises(ValueError, match=next(iter(update))):
        Claimed.model_validate(value)
