"""`atoll certs`: what it prints, and every bad input as a sentence and a code."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.cli.app import guarded

INIT = ("init", "fed", "--server", "fl.example.org", "--clients", "hospital-a,hospital-b")
Said = Callable[..., str]


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """Types `atoll certs ...` in an empty folder: what is printed, or the error with its code."""
    monkeypatch.chdir(tmp_path)

    def types(*words: str) -> str:
        code = guarded(["certs", *words])
        out, err = capsys.readouterr()
        assert code == 0 or out == ""
        return out if code == 0 else f"{code} {err}"

    return types


def _document(said: Said, *words: str) -> Any:
    return json.loads(said(*words, "--format", "json"))


def test_from_the_beginning_to_a_revoked_site(said: Said) -> None:
    assert said(*INIT).splitlines() == [
        "fed/ca  signs who takes part; keep it apart from the server",
        "fed/server  the server's",
        "fed/hospital-a  for hospital-a alone",
        "fed/hospital-b  for hospital-b alone",
    ]
    asked = said("request", "hospital-c")
    key = asked.splitlines()[1].rpartition(" ")[2]
    assert asked == (
        "Send hospital-c/request.pem to the operator of the server, and nothing else.\n"
        f"Read these digits to them by telephone: {key}\n"
        "What comes back, client.pem and ca.pem, belongs into hospital-c.\n"
    )
    assert said("show", "hospital-c/request.pem").endswith(f"waits for the operator\nkey {key}\n")
    both = ("--ca", "fed/ca", "--server", "fed/server")
    signed = said("sign", "hospital-c/request.pem", *both).splitlines()
    assert signed[0].startswith("hospital-c takes part until 20")
    assert signed[0].endswith(f" UTC, with the key {key}")
    assert signed[1] == "Send hospital-c/client.pem and hospital-c/ca.pem back to it."
    revoked = said("revoke", "hospital-a", "--server", "fed/server")
    assert revoked == "The key of hospital-a is revoked and takes part no longer.\n"
    again = said("revoke", "hospital-a", "--server", "fed/server")
    assert again == "The key of hospital-a was revoked before.\n"
    rows = [line.split("  ") for line in said("show", "fed").splitlines()]
    assert [(row[0], row[-1].split()[0]) for row in rows] == [
        ("Atoll federation CA", "valid"), ("Atoll server", "fl.example.org,"),
        ("hospital-a", "revoked"), ("hospital-b", "valid"), ("hospital-c", "valid"),
    ]  # fmt: skip
    assert "counts until 20" in said("renew", "--server", "fed/server", "--ca", "fed/ca")


def test_as_documents(said: Said) -> None:
    made = _document(said, *INIT)
    assert made["clients"] == ["hospital-a", "hospital-b"]
    assert [row["kind"] for row in made["who"]] == ["CA", "server", "client", "client"]
    asked = _document(said, "request", "hospital-c", "--out", "c")
    assert asked == {"path": "c", "name": "hospital-c", "key": asked["key"]}
    both = ("--ca", "fed/ca", "--server", "fed/server")
    signed = _document(said, "sign", "c/request.pem", *both, "--out", "back", "--days", "7")
    assert signed["files"] == ["back/client.pem", "back/ca.pem"]
    assert signed["key"] == asked["key"]
    put_out = _document(said, "revoke", "hospital-b", "--server", "fed/server")
    assert put_out == {"name": "hospital-b", "server": "fed/server", "changed": True}
    renewed = _document(said, "renew", *both, "--names", "10.0.0.9,new.example.org")
    loopback = ["localhost", "127.0.0.1", "::1"]
    names = {*renewed["who"][1]["names"]}
    assert names == {"new.example.org", "10.0.0.9", *loopback}
    shown = _document(said, "show", "fed/server")
    states = {row["name"]: row["state"] for row in shown["who"] if row["kind"] == "client"}
    assert states["hospital-b"].startswith("revoked 20")
    assert {states[name] for name in ("hospital-a", "hospital-c")} == {"valid"}
    assert shown["who"][-1]["expires"] == signed["expires"]


def test_each_folder_can_be_shown(said: Said) -> None:
    said(*INIT)
    for folder, kinds in (("fed/ca", ["CA"]), ("fed/hospital-a", ["CA", "client"])):
        shown = _document(said, "show", folder)
        assert [row["kind"] for row in shown["who"]] == kinds
        assert [row["state"] for row in shown["who"]] == ["valid"] * len(kinds)
    shutil.copy("fed/hospital-a/client.pem", "fed/server/clients/hospital-b.pem")
    assert "its certificate is for another name, hospital-a" in said("show", "fed")
    Path("fed/hospital-a/client.key").chmod(0o640)
    assert _document(said, "show", "fed")["open_keys"] == ["fed/hospital-a/client.key"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("init", "new", "--server", "fl.example.org:9092"), "2 Error: --server has "
         "'fl.example.org:9092', which is no host name or IP address; give what sites connect to, "
         "without port, scheme or brackets (others than a to z in their `xn--` form), as in "
         "fl.example.org,10.0.0.5\n"),
        (("init", "new", "--server", ""), "2 Error: --server names no server; give the host name "
         "that sites connect to\n"),
        (("init", "fed", "--server", "a.org"), "2 Error: fed is there already, and no key is ever "
         "overwritten; name a folder that is not there yet\n"),
        (("init", "new", "--server", "a.org", "--clients", "a,A"), "2 Error: --clients has 'a' "
         "twice; give each site a name of its own\n"),
        (("init", "new", "--server", "a.org", "--clients", "ca"), "2 Error: 'ca' is what the "
         "federation's own folder ca/ is called; choose another\n"),
        (("request", "../up"), "2 Error: '../up' is no name for a site; use a to z, A to Z, 0 to "
         "9, `-`, `_` and `.`, at most 64 of them, the first a letter, a digit or `_`\n"),
        (("request", "hospital-c", "--out", "fed/ca"), "2 Error: fed/ca is there already, and no "
         "key is ever overwritten; name a folder that is not there yet\n"),
        (("sign", "no.pem", "--ca", "fed/ca", "--server", "fed/server"), "8 Error: no.pem cannot "
         "be read: no such file\n"),
        (("sign", "fed/hospital-a/request.pem", "--ca", "fed", "--server", "fed/server"), "8 Error:"
         " fed holds no ca.key; name the folder ca/ that `atoll certs init` made\n"),
        (("sign", "fed/hospital-a/request.pem", "--ca", "fed/ca", "--server", "fed/server"),
         "8 Error: hospital-a is admitted to fed/server already; --renew puts this request's key "
         "in the place of its present one\n"),
        (("sign", "fed/hospital-a/request.pem", "--ca", "fed/ca", "--server", "fed"), "8 Error: "
         "fed is not the folder of a server: it has no clients/; did you mean fed/server?\n"),
        (("revoke", "hospital-x", "--server", "fed/server"), "2 Error: no site 'hospital-x' was "
         "admitted to fed/server; there is hospital-b, hospital-a\n"),
        (("revoke", "hospital-a", "--server", "none"), "8 Error: none is not the folder of a "
         "server: it has no clients/\n"),
        (("renew", "--server", "fed", "--ca", "fed/ca"), "8 Error: fed is not the folder of a "
         "server: it has no clients/; did you mean fed/server?\n"),
        (("renew", "--server", "fed/server", "--ca", "fed/ca", "--names", "a b"), "2 Error: "
         "--names has 'a b', which is no host name or IP address; give what sites connect to, "
         "without port, scheme or brackets (others than a to z in their `xn--` form), as in "
         "fl.example.org,10.0.0.5\n"),
        (("show", "none"), "8 Error: none holds no certificates; name a folder that `atoll certs` "
         "made, or a request\n"),
        (("show", "fed/ca/ca.key"), "8 Error: fed/ca/ca.key holds no request that can be read; "
         "give the request.pem that `atoll certs request` wrote\n"),
    ],
)  # fmt: skip
def test_bad_input(said: Said, words: tuple[str, ...], message: str) -> None:
    said(*INIT)
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert said(*words) == message
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


@pytest.mark.parametrize(
    "host",
    ["https://a.org", "[::1]", "10.0.0.300", "a..org", "-a.org", "é.org", "fe80::1%eth0", "a,,b",
     "x" * 64, "a/b", "*.a.org"],
)  # fmt: skip
def test_what_is_no_host(said: Said, host: str) -> None:
    assert said("init", "new", "--server", host).startswith("2 Error: --server has ")
    assert not Path("new").exists()


@pytest.mark.parametrize("host", ["a", "a.b-c.org", "10.0.0.5", "fd00::5", "xn--bcher-kva.org",
                                  "atoll_server", "1password.com"])  # fmt: skip
def test_what_is_a_host(said: Said, host: str) -> None:
    found = _document(said, "init", "new", "--server", f"{host},localhost")
    assert {host, "localhost"} <= {*found["who"][1]["names"]}


@pytest.mark.parametrize("name", ["a", "_x", "7", "Clinic_1.north-east", "x" * 64])
def test_what_is_a_name(said: Said, name: str) -> None:
    said("request", name)
    assert (Path(name) / "client.key").is_file()


@pytest.mark.parametrize("name", ["", ".x", "..", "a/b", "a b", "é", "x" * 65, "server", "CA"])
def test_what_is_no_name(said: Said, name: str) -> None:
    assert said("request", name).startswith(f"2 Error: {name!r} is ")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("days", ["0", "-1", "3651", "soon"])
def test_days_that_are_none(said: Said, days: str) -> None:
    assert said("init", "new", "--server", "a.org", "--days", days).startswith("2 Error: Invalid")
    assert not Path("new").exists()


@pytest.mark.parametrize("words", [INIT, ("request", "hospital-c")])
def test_a_full_disk_leaves_nothing(said: Said, words: tuple[str, ...]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        message = said(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert message.startswith("6 Error: ")
    assert "cannot be written: " in message
    assert list(Path().iterdir()) == []
