"""What is written down of a departure, and that it is on the disk before the message leaves."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import atoll
from atoll.core import Channel
from atoll.core.wire import pack_payload
from atoll.egress.measure import norm
from atoll.egress.record import TOLD, Departure, Egress
from atoll.egress.verify import verify
from atoll.errors import EgressError, RunError
from tests.support.departures import certificate_for, departure, open_record, recorded, site

FIRST = "egress-0001.jsonl"


def lines(folder: Path, file: str = FIRST) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / file).read_bytes().splitlines()]


def test_a_line_says_what_left(tmp_path: Path) -> None:
    who = site("hospital-a")
    up = torch.tensor([[3.0, 4.0], [0.0, 12.0]])
    payload = {
        "update": Channel({"layer.lora_A": up, "layer.q": torch.tensor([-3, 4], dtype=torch.int8)}),
        "examples": Channel({"rows": torch.tensor(7.0, dtype=torch.float64)}, "sum"),
    }
    data = pack_payload(payload)
    before = datetime.now(UTC)
    with open_record(tmp_path, who) as egress:
        egress.append(Departure("finetune", 3, 9, "fedavg", payload, data))
        egress.append(Departure("finetune", 4, 11, "failure", None, (10**9, "ab" * 32), "no rows"))
    first, sent, failed = lines(tmp_path)
    assert first["site"] == "hospital-a"
    assert first["atoll"] == atoll.__version__
    assert first["certificate_sha256"] == who.certificate.fingerprint(SHA256()).hex()
    assert first["certificate"].encode() == who.pem
    assert list(sent) == ["number", "kind", "time", "run", "round", "exchange", "task", "tensors",
                          "bytes", "sha256", "privacy", "text", "previous",
                          "signature"]  # fmt: skip
    assert before.timestamp() - 0.002 <= datetime.fromisoformat(sent["time"]).timestamp()
    assert sent["time"].endswith("Z")
    known = {key: sent[key] for key in ("number", "run", "round", "exchange", "task", "text")}
    assert known == {"number": 1, "run": "finetune", "round": 3, "exchange": 9, "task": "fedavg",
                     "text": None}  # fmt: skip
    assert sent["privacy"] == {"epsilon": None}
    assert (sent["bytes"], sent["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert sent["tensors"] == [
        {"channel": "update", "name": "layer.lora_A", "shape": [2, 2], "dtype": "float32",
         "bytes": 16, "l2": 13.0},
        {"channel": "update", "name": "layer.q", "shape": [2], "dtype": "int8", "bytes": 2,
         "l2": 5.0},
        {"channel": "examples", "name": "rows", "shape": [], "dtype": "float64", "bytes": 8,
         "l2": 7.0},
    ]  # fmt: skip
    assert (failed["bytes"], failed["sha256"], failed["text"]) == (10**9, "ab" * 32, "no rows")


def test_lines_are_chained_and_signed_as_the_page_says(tmp_path: Path) -> None:
    who = recorded(tmp_path, range(3))
    previous = "0" * 64
    for number, raw in enumerate((tmp_path / FIRST).read_bytes().splitlines(keepends=True)):
        line = json.loads(raw)
        assert (line["number"], line["previous"]) == (number, previous)
        body, _, signature = raw.rstrip(b"\n").partition(b',"signature":"')
        key = who.key.public_key()
        key.verify(base64.b64decode(signature[:-2]), body + b"}", ECDSA(SHA384()))
        previous = hashlib.sha256(raw).hexdigest()
    head = json.loads((tmp_path / "egress.head").read_bytes())
    assert (head["number"], head["hash"]) == (3, previous)
    assert head["size"] == (tmp_path / FIRST).stat().st_size


@pytest.mark.skipif(which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees(tmp_path: Path) -> None:
    who = recorded(tmp_path / "record", range(1))
    raw = (tmp_path / "record" / FIRST).read_bytes().splitlines()[1]
    body, _, signature = raw.partition(b',"signature":"')
    (tmp_path / "body").write_bytes(body + b"}")
    (tmp_path / "signature").write_bytes(base64.b64decode(signature[:-2]))
    public = who.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    command = ["openssl", "dgst", "-sha384", "-verify", "public.pem", "-signature", "signature"]
    done = subprocess.run([*command, "body"], cwd=tmp_path, capture_output=True, check=False)
    assert done.stdout.strip() == b"Verified OK"


DTYPES = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int8, np.uint8, np.bool_]


@given(st.data())
def test_norms_are_those_of_numpy(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    values = data.draw(arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0)))
    with np.errstate(over="ignore"):
        wanted = float(np.sqrt(np.square(values.astype(np.float64)).sum()))
    found = norm(torch.from_numpy(np.array(values)))
    assert found is None if not np.isfinite(wanted) else found == pytest.approx(wanted, rel=1e-12)


def test_a_norm_keeps_its_digits_over_many_values() -> None:
    """In float32 the sum of so many squares would stop growing."""
    many = torch.full((2**21 + 3, 9), 0.1)
    wanted = np.float64(np.float32(0.1)) * np.sqrt(float(many.numel()))
    assert norm(many) == pytest.approx(wanted, rel=1e-12)
    half = torch.full((2, 70_000), 300.0, dtype=torch.bfloat16)
    assert norm(half.T) == pytest.approx(300.0 * np.sqrt(140_000.0), rel=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_a_norm_that_is_no_number_is_null(value: float, tmp_path: Path) -> None:
    payload = {"update": Channel({"x": torch.tensor([value], dtype=torch.float64)})}
    with open_record(tmp_path, site("hospital-a")) as egress:
        egress.append(Departure("r", 0, 0, "fedavg", payload, b""))
    assert lines(tmp_path)[1]["tensors"][0]["l2"] is None
    assert verify(tmp_path).runs["r"].norm is None


def test_a_long_message_is_kept_short_and_any_name_is_kept(tmp_path: Path) -> None:
    strange = 'a"\n\u2028\ud800\x1b[31m'
    with open_record(tmp_path, site("hospital-a")) as egress:
        egress.append(Departure(strange, 0, 0, "failure", None, b"x", "y" * 10 * TOLD))
    line = lines(tmp_path)[1]
    assert line["text"] == "y" * (TOLD - 1) + "…"
    assert line["run"] == strange
    assert list(verify(tmp_path).runs) == [strange]
    assert (tmp_path / FIRST).read_bytes().isascii()


def test_a_record_goes_on_when_it_is_opened_again(tmp_path: Path) -> None:
    for number in range(3):
        recorded(tmp_path, [number])
    assert [line["number"] for line in lines(tmp_path)] == [0, 1, 2, 3]
    assert verify(tmp_path).messages == 3


def test_large_files_are_followed_by_others(tmp_path: Path) -> None:
    recorded(tmp_path, range(4), large=1800)
    who = recorded(tmp_path, range(4, 8), large=1800)
    files = sorted(path.name for path in tmp_path.glob("*.jsonl"))
    assert files[:2] == ["egress-0001.jsonl", "egress-0002.jsonl"]
    assert len(files) > 2
    numbers = [line["number"] for file in files for line in lines(tmp_path, file)]
    assert numbers == list(range(8 + len(files)))
    assert [lines(tmp_path, file)[0]["file"] for file in files] == list(range(1, len(files) + 1))
    found = verify(tmp_path, who.certificate)
    assert (found.files, found.messages, found.number) == (len(files), 8, numbers[-1])
    for file in files:
        alone = verify(tmp_path / file, who.certificate)
        assert (alone.files, alone.lines) == (1, len(lines(tmp_path, file)))


def test_a_renewed_key_begins_a_file(tmp_path: Path) -> None:
    old, new = recorded(tmp_path, range(2)), site("hospital-a", 1)
    with open_record(tmp_path, new) as egress:
        egress.append(departure(2))
    # The same key under a renewed certificate does, too.
    again = certificate_for("hospital-a", new.key)
    with Egress.open(tmp_path, site="hospital-a", key=new.key,
                     certificate_pem=again.public_bytes(Encoding.PEM)) as egress:  # fmt: skip
        egress.append(departure(3))
    assert verify(tmp_path).certificates == [
        one.fingerprint(SHA256()).hex() for one in (old.certificate, new.certificate, again)
    ]
    assert verify(tmp_path, old.certificate, new.certificate).messages == 4
    with pytest.raises(EgressError, match=r"0002.jsonl, line 1: it is signed by another key"):
        verify(tmp_path, old.certificate)
    with pytest.raises(EgressError, match=r"0001.jsonl, line 1: it is signed by another key"):
        verify(tmp_path, new.certificate)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    who = site("hospital-a")
    code = (
        "import sys\nfrom pathlib import Path\nfrom atoll.disk.lock import alone\n"
        "with alone(Path(sys.argv[1])):\n print('held', flush=True)\n sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="another process keeps its record in"):
            open_record(tmp_path, who)
        other.kill()
    with open_record(tmp_path, who), pytest.raises(RunError, match="another process"):
        open_record(tmp_path, who)
    open_record(tmp_path, who).close()


def test_threads_take_turns(tmp_path: Path) -> None:
    with open_record(tmp_path, site("hospital-a")) as egress, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: egress.append(departure(number)), range(20)))
    assert verify(tmp_path).messages == 20
    with pytest.raises(AssertionError, match="the record is closed"):
        egress.append(departure(20))


def test_a_record_is_of_one_site(tmp_path: Path) -> None:
    recorded(tmp_path, range(1))
    with pytest.raises(EgressError, match="record of 'hospital-a', and this is 'hospital-b'"):
        open_record(tmp_path, site("hospital-b"))


def test_key_and_certificate_belong_together(tmp_path: Path) -> None:
    a, b = site("hospital-a"), site("hospital-b")
    with pytest.raises(EgressError, match="belongs to another key"):
        Egress.open(tmp_path / "x", site="a", key=a.key, certificate_pem=b.pem)
    with pytest.raises(EgressError, match="certificate of a cannot be used"):
        Egress.open(tmp_path / "x", site="a", key=a.key, certificate_pem=b"none")
    assert not (tmp_path / "x").exists()


def test_torch_is_not_needed_to_read(tmp_path: Path) -> None:
    recorded(tmp_path, range(1))
    code = (
        "import sys\nfrom pathlib import Path\nfrom atoll.egress.verify import verify\n"
        "from atoll.egress import record\n"
        "assert verify(Path(sys.argv[1])).messages == 1\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_file_that_others_change_meanwhile_stops_departures(tmp_path: Path) -> None:
    with open_record(tmp_path, site("hospital-a")) as egress:
        egress.append(departure(0))
        held = (tmp_path / FIRST).read_bytes()
        for other in (held + b"{}\n", held[:-1], b""):
            (tmp_path / FIRST).write_bytes(other)
            with pytest.raises(EgressError, match="was changed by someone else"):
                egress.append(departure(1))
        (tmp_path / FIRST).write_bytes(held)
        egress.append(departure(1))
    assert verify(tmp_path).messages == 2
    assert re.fullmatch(r"[0-9a-f]{64}", lines(tmp_path)[2]["previous"])
