"""`atoll egress` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from ssl import DER_cert_to_PEM_cert

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from atoll.cli.app import guarded
from atoll.core import Channel
from atoll.egress.manifest import Participant, manifest, write_manifest
from atoll.egress.record import Departure
from tests.support.departures import Site, certificate_for, departure, open_record, recorded, site

UPDATE = {
    "update": Channel({"a.lora_A": torch.tensor([3.0, 0]), "a.lora_B": torch.tensor([0, 4.0])}),
    "examples": Channel({"rows": torch.tensor(12.0)}, "sum"),
}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """`state/egress` of two runs, and `client.pem`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    who = site("hospital-a")
    Path("client.pem").write_bytes(who.pem)
    with open_record(Path("state/egress"), who) as egress:
        egress.append(Departure("tuned", 1, 0, "fedavg", UPDATE, b"x" * 2000))
        egress.append(Departure("other", 1, 0, "failure", None, b"y", "no [bold]rows\x1b[2J"))
        egress.append(Departure("tuned", 2, 1, "fedavg", UPDATE, b"x" * 2000))
    return who


def test_a_whole_record_is_summed_up(record: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["egress", "verify", "state/egress", "--certificate", "client.pem"]) == 0
    head, sums, signed, _, *table = capsys.readouterr().out.splitlines()
    assert head.startswith(
        "state/egress: whole. 4 lines in 1 file of hospital-a, number 3 the last"
    )
    assert sums == "3 messages with 4.0 kB left"
    assert signed.startswith("signed by the key of the certificate ")
    assert signed.endswith(" (as given)")
    assert table[0].split() == ["run", "messages", "bytes", "rounds", "largest", "norm", "of"]
    assert table[2].split() == ["tuned", "2", "4.0", "kB", "2", "4.000", "update/a.lora_B"]
    assert table[3].split() == ["other", "1", "1", "B", "1", "–", "–"]
    assert guarded(["egress", "verify", "state/egress/egress-0001.jsonl"]) == 0
    assert "(as the record says; --certificate checks whose it is)" in capsys.readouterr().out


def test_json_has_it_all(record: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["egress", "verify", "state/egress", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"]["tuned"] == {
        "messages": 2, "bytes": 4000, "rounds": 2, "largest_norm": 4.0,
        "largest_tensor": "update/a.lora_B",
    }  # fmt: skip
    assert (found["site"], found["lines"], found["bytes"]) == ("hospital-a", 4, 4001)
    assert found["certificates_given"] is False
    assert (found["cuts"], found["unfinished_bytes"], found["last_number"]) == (0, 0, 3)


def test_lines_are_shown(record: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["egress", "show", "state/egress"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["number", "time", "(UTC)", "run", "round", "task", "tensors", "bytes",
                            "norm", "said"]  # fmt: skip
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert rows[0].split()[3:] == ["tuned", "1", "fedavg", "3", "2.0", "kB", "5.000"]
    # Nothing of a message acts on the terminal.
    assert rows[1].rstrip().endswith("no [bold]rows\N{REPLACEMENT CHARACTER}[2J")
    assert guarded(["egress", "show", "state/egress", "--run", "other", "--format", "json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["number"], line["text"]) == (2, "no [bold]rows\x1b[2J")
    assert line["privacy"] == {"epsilon": None}


@pytest.mark.parametrize("command", ["verify", "show"])
def test_a_changed_record_is_6(
    command: str, record: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("state/egress/egress-0001.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"bytes":2000', b'"bytes":1000'))
    assert guarded(["egress", command, "state/egress"]) == 6
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == (
        "Error: state/egress/egress-0001.jsonl, line 2: it has been edited after it was signed, or "
        "another key has signed it; all before it is as the site wrote it; find out who could "
        "write into that folder\n"
    )
    file.write_bytes(whole)
    Path("other.pem").write_bytes(site("hospital-b").pem)
    assert guarded(["egress", command, "state/egress", "--certificate", "other.pem"]) == 6
    assert "line 1: it is signed by another key, of the certificate" in capsys.readouterr().err


def test_a_kill_is_told(record: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("state/egress/egress-0001.jsonl").open("ab") as stream:
        stream.write(b'{"number":')
    assert guarded(["egress", "verify", "state/egress"]) == 0
    assert "10 bytes of a line at the end are unfinished" in capsys.readouterr().out
    with open_record(Path("state/egress"), record) as egress:
        egress.append(departure(4))
    assert guarded(["egress", "verify", "state/egress"]) == 0
    assert "cut off after a kill, and never sent: 1 unfinished line\n" in capsys.readouterr().out


def of_version(number: int, who: Site) -> bytes:
    der = bytearray(who.certificate.public_bytes(Encoding.DER))
    der[der.index(bytes([0xA0, 3, 2, 1, 2])) + 4] = number
    return bytes(der)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["verify", "nothing"], 6, "there is no record nothing"),
        (["show", "client.pem"], 6, "client.pem is no file of a record"),
        (
            ["verify", "state/egress", "--certificate", "none.pem"],
            8,
            "cannot be read: no such file",
        ),
        (
            ["verify", "state/egress", "--certificate", "state/egress/egress.head"],
            8,
            "holds no cert",
        ),
        (["verify", "state/egress", "--certificate", "rsa.pem"], 8, "its key is of another kind"),
        (["show", "state/egress", "--certificate", "version.pem"], 8, "holds no certificate that"),
        (["manifest", "client.pem"], 2, "Missing option '--certificate'"),
        (["manifest", "client.pem", "--certificate", "client.pem"], 6, "or is no manifest"),
        (["verify"], 2, "Missing argument"),
        (["shows"], 2, "No such command"),
    ],
)
def test_a_wrong_command_line(
    words: list[str], code: int, said: str, record: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    Path("rsa.pem").write_bytes(certificate_for("x", rsa_key).public_bytes(Encoding.PEM))
    Path("version.pem").write_text(DER_cert_to_PEM_cert(of_version(18, record)))
    assert guarded(["egress", *words]) == code
    assert said in capsys.readouterr().err


def test_a_manifest_is_checked_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    server, who = site("server"), Participant("hospital-a", "ab" * 32, 1, 20)
    facts = manifest("tuned", "seed: 0\n", base="11" * 32, labels=None, participants=[who])
    write_manifest(Path("manifest.json"), facts, server.key)
    Path("server.pem").write_bytes(server.pem)
    command = ["egress", "manifest", "manifest.json", "--certificate"]
    assert guarded([*command, "server.pem"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "manifest.json: as the server signed it"
    assert f"code_sha256: {facts['code_sha256']}" in lines
    assert lines[-1].split() == ["hospital-a", "ab" * 32, "1", "20"]
    assert guarded([*command, "server.pem", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts
    Path("other.pem").write_bytes(site("hospital-b").pem)
    assert guarded([*command, "other.pem"]) == 6
    assert "another key has signed it than that of the certificate" in capsys.readouterr().err


def test_nothing_has_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(tmp_path, [])
    assert guarded(["egress", "verify", str(tmp_path)]) == 0
    assert "0 messages with 0 B left\n" in capsys.readouterr().out
    assert guarded(["egress", "show", str(tmp_path)]) == 0


def test_the_reader_loads_no_torch(record: Site) -> None:
    code = (
        "import sys\nfrom atoll.cli.app import guarded\n"
        "assert guarded(['egress', 'verify', 'state/egress']) == 0\n"
        "assert guarded(['egress', 'show', 'state/egress']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
