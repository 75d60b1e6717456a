"""Whatever is changed in a record is found, and said."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.egress.verify import verify
from atoll.errors import EgressError, RunError
from tests.support.departures import Site, departure, open_record, recorded, site

FIRST, SECOND, HEAD = "egress-0001.jsonl", "egress-0002.jsonl", "egress.head"
Files = dict[str, bytes]


@cache
def made() -> Files:
    """Two files of a site's record, of two runs."""
    with TemporaryDirectory() as name:
        folder, who = Path(name), site("hospital-a")
        with open_record(folder, who, large=2600) as egress:
            for number in range(6):
                egress.append(departure(number, "first" if number < 4 else "second"))
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files.keys() == {FIRST, SECOND, HEAD}
    return files


def verified(files: Files, folder: Path, who: Site | None = None) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    verify(folder, *([who.certificate] if who else []))


def refused(files: Files) -> str:
    """What verify says, the same with the site's certificate given and without."""
    said = []
    for who in (None, site("hospital-a")):
        with TemporaryDirectory() as name:
            try:
                verified(files, Path(name), who)
            except EgressError as error:
                said.append(str(error).replace(f"{name}/", ""))
    assert len(said) == 2, "verify has let it pass"
    return said[0]


def test_what_was_written_passes(tmp_path: Path) -> None:
    who = site("hospital-a")
    verified(made(), tmp_path, who)
    found = verify(tmp_path, who.certificate)
    assert (found.site, found.files, found.lines, found.messages) == ("hospital-a", 2, 8, 6)
    assert found.bytes == 6 * len(b"message 0")
    assert list(found.runs) == ["first", "second"]
    assert found.runs["first"].rounds == {0, 1}
    assert found.certificates == [who.certificate.fingerprint(SHA256()).hex()]
    assert found.first is not None
    assert found.last is not None
    assert found.first <= found.last


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_byte_that_is_changed_is_found(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([FIRST, SECOND, HEAD]))
    content = bytearray(made()[name])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    refused({**made(), name: bytes(content)})


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_tail_that_is_cut_is_found(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([FIRST, SECOND, HEAD]))
    kept = data.draw(st.integers(0, len(made()[name]) - 1))
    refused({**made(), name: made()[name][:kept]})


EDITS = ("remove", "swap", "copy", "move", "blank", "split", "join")


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_line_that_is_removed_moved_or_copied_is_found(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([FIRST, SECOND]))
    lines = made()[name].splitlines(keepends=True)
    edit, places = data.draw(st.sampled_from(EDITS)), st.integers(0, len(lines) - 1)
    place = data.draw(places)
    match edit:
        case "remove":
            del lines[place]
        case "swap":
            other = data.draw(places.filter(lambda one: one != place))
            lines[place], lines[other] = lines[other], lines[place]
        case "copy":
            lines.insert(data.draw(st.integers(0, len(lines))), lines[place])
        case "move":
            line = lines.pop(place)
            other = data.draw(places.filter(lambda one: one != place))
            lines.insert(other, line)
        case "blank":
            lines.insert(place, data.draw(st.sampled_from([b"\n", b"\r\n", b"{}\n", b"null\n"])))
        case "split":
            at = data.draw(st.integers(1, len(lines[place]) - 2))
            lines[place] = lines[place][:at] + b"\n" + lines[place][at:]
        case "join":
            lines[place] = lines[place][:-1]
    refused({**made(), name: b"".join(lines)})


def edited(place: int, change: Callable[[list[bytes]], None], name: str = FIRST) -> str:
    lines = made()[name].splitlines(keepends=True)
    change(lines)
    return refused({**made(), name: b"".join(lines)})


def forged(line: bytes, who: Site, **changes: object) -> bytes:
    """A line as who has another key would write it."""
    value = {**json.loads(line), **changes}
    del value["signature"]
    body = json.dumps(value, separators=(",", ":")).encode()
    signature = base64.b64encode(who.key.sign(body, ECDSA(SHA384())))
    return body[:-1] + b',"signature":"' + signature + b'"}\n'


def test_each_fault_is_named_where_it_is_first_seen() -> None:
    lines = made()[FIRST].splitlines(keepends=True)
    thief = site("thief")
    names: dict[str, list[bytes]] = {
        "line 3: it has been edited after it was signed, or another key has signed it":
            [*lines[:2], lines[2].replace(b'"round":0', b'"round":1'), *lines[3:]],
        "line 3: lines have been removed before it: number 2 is missing":
            [*lines[:2], *lines[3:]],
        "line 2: lines have been removed before it: 1 to 2 are missing":
            [lines[0], *lines[3:]],
        "line 2: lines have been reordered: number 2 stands before number 1":
            [lines[0], lines[2], lines[1], *lines[3:]],
        "line 4: it has been inserted: number 2 has its place before":
            [*lines[:3], lines[2], *lines[3:]],
        "line 3: it has been inserted: the site did not sign it":
            [*lines[:2], forged(lines[2], thief, sha256="00"), *lines[2:]],
        "line 1: the line that a file begins with has been removed or moved": lines[1:],
        "line 1: it has been edited: it is not as Atoll writes lines": [b"\n", *lines],
        "line 1: it has been edited after it was signed":
            [lines[0].replace(b'"site":"hospital-a"', b'"site":"hospital-b"'), *lines[1:]],
    }  # fmt: skip
    for words, changed in names.items():
        said = refused({**made(), FIRST: b"".join(changed)})
        assert said.startswith(f"{FIRST}, {words}; "), said
        assert said.endswith("find out who could write into that folder")


def test_missing_files_and_ends_are_named(tmp_path: Path) -> None:
    files, lines = made(), made()[SECOND].splitlines(keepends=True)
    cases = {
        f"{SECOND}: lines have been removed at its end: egress.head knows of number 7":
            {**files, SECOND: b"".join(lines[:-1])},
        f"{SECOND}: lines have been removed at its end: egress.head knows of number 7 in it":
            {FIRST: files[FIRST], HEAD: files[HEAD]},
        f"{FIRST}: it has been removed: {SECOND} goes on from it":
            {SECOND: files[SECOND], HEAD: files[HEAD]},
        "egress.head is missing, without which nobody knows the last line":
            {FIRST: files[FIRST], SECOND: files[SECOND]},
        f"{FIRST}, line 1: the file has been renamed: it was written as number 2":
            {FIRST: files[SECOND], SECOND: files[FIRST], HEAD: files[HEAD]},
        "egress.head: it has been edited, or another key has signed it":
            {**files, HEAD: forged(files[HEAD], site("thief"))},
    }  # fmt: skip
    for words, changed in cases.items():
        assert refused(changed).startswith(words)
    for name in files:
        (tmp_path / name).write_bytes(files[name])
    # A file by itself ends where the next one goes on, or where the head says.
    shorter = b"".join(files[FIRST].splitlines(keepends=True)[:-1])
    (tmp_path / FIRST).write_bytes(shorter)
    with pytest.raises(EgressError, match=f"removed at its end: {SECOND} goes on from number"):
        verify(tmp_path / FIRST)
    (tmp_path / SECOND).unlink()
    with pytest.raises(EgressError, match=r"removed at its end: egress.head knows of number 7 in"):
        verify(tmp_path / FIRST)


def test_an_older_head_does_not_hide_lines_that_were_added(tmp_path: Path) -> None:
    recorded(tmp_path, range(2))
    head = (tmp_path / HEAD).read_bytes()
    recorded(tmp_path, [2])
    newer = (tmp_path / HEAD).read_bytes()
    (tmp_path / HEAD).write_bytes(head)
    assert verify(tmp_path).messages == 3
    (tmp_path / HEAD).write_bytes(newer)
    recorded(tmp_path, [3])
    (tmp_path / HEAD).write_bytes(head)
    with pytest.raises(EgressError, match="lines were added after number 2, the last that"):
        verify(tmp_path)


def test_a_record_that_is_signed_anew_is_another_keys(tmp_path: Path) -> None:
    """The whole of it, as its site would: only the certificate tells."""
    thief = Site("hospital-a", site("thief").key, site("thief").certificate)
    with open_record(tmp_path, thief) as egress:
        egress.append(departure(0))
    assert verify(tmp_path).certificates == [thief.certificate.fingerprint(SHA256()).hex()]
    with pytest.raises(EgressError, match=r"line 1: it is signed by another key, of the certifica"):
        verify(tmp_path, site("hospital-a").certificate)


def test_lines_that_are_signed_anew_under_the_sites_own_first_line(tmp_path: Path) -> None:
    lines, thief = made()[FIRST].splitlines(keepends=True), site("thief")
    forgery, previous = lines[:2], hashlib.sha256(lines[1]).hexdigest()
    for line in lines[2:]:
        forgery.append(forged(line, thief, previous=previous))
        previous = hashlib.sha256(forgery[-1]).hexdigest()
    said = refused({**made(), FIRST: b"".join(forgery)})
    assert said.startswith(f"{FIRST}, line 3: it has been edited after it was signed, or another")


def test_another_signature_that_fits_is_found() -> None:
    """(r, n − s) is as good a signature as (r, s), and anybody can compute it."""
    order = 2**384 - 1388124618062372383947042015309946732620727252194336364173
    for name in (FIRST, SECOND):
        lines = made()[name].splitlines(keepends=True)
        for place, line in enumerate(lines):
            body, _, signature = line.partition(b',"signature":"')
            r, s = decode_dss_signature(base64.b64decode(signature[:-3]))
            other = base64.b64encode(encode_dss_signature(r, order - s))
            key = site("hospital-a").key.public_key()
            key.verify(base64.b64decode(other), body + b"}", ECDSA(SHA384()))
            changed = [*lines]
            changed[place] = body + b',"signature":"' + other + b'"}\n'
            refused({**made(), name: b"".join(changed)})


def test_a_certificate_that_the_library_stumbles_over_is_an_edit() -> None:
    first, *lines = made()[FIRST].splitlines(keepends=True)
    pem = json.loads(first)["certificate"].encode()
    der = bytearray(ssl.PEM_cert_to_DER_cert(pem.decode()))
    version = der.index(bytes([0xA0, 3, 2, 1, 2])) + 4
    for place, value in ((version, 18), (version + 3, 0xFF), (len(der) - 200, 0)):
        changed = bytearray(der)
        changed[place] = value
        text = json.dumps(ssl.DER_cert_to_PEM_cert(bytes(changed)))[1:-1].encode()
        line = first.replace(json.dumps(pem.decode())[1:-1].encode(), text)
        assert line != first
        refused({**made(), FIRST: b"".join([line, *lines])})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "there is no record"),
        ("empty", "holds no record"),
        ("notes.txt", "is no file of a record: those are called egress-0001.jsonl"),
    ],
)
def test_what_is_no_record(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RunError, match=re.escape(words)):
        verify(tmp_path / (name or "nothing"))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"9" * 10_000, b"NaN",
        b'{"signature":"x"}', b'{"kind":"head","signature":3}', b"", b"null", b'"x"',
    ],
)  # fmt: skip
def test_hostile_heads_and_lines(raw: bytes) -> None:
    assert "egress.head has been edited" in refused({**made(), HEAD: raw + b"\n"})
    assert "line 1: it has been edited" in refused({**made(), FIRST: raw + b"\n" + made()[FIRST]})


def test_a_record_is_read_while_it_is_written(tmp_path: Path) -> None:
    who = recorded(tmp_path, range(1))
    ended = threading.Event()

    def write() -> None:
        with open_record(tmp_path, who, large=5000) as egress:
            for number in range(60):
                egress.append(departure(number))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not ended.is_set():
        seen.append(verify(tmp_path, who.certificate).messages)
    writer.join()
    assert seen == sorted(seen)
    assert verify(tmp_path, who.certificate).messages == 61
