"""Encrypted sums: they are the sums, and nothing but a sum of enough clients is decrypted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from atoll.ckks import (
    STEP,
    Agreed,
    Folder,
    Held,
    Mark,
    PublicKey,
    Silo,
    Store,
    Sum,
    check_installed,
    read_plain,
    reduced,
    unpack,
)
from atoll.errors import ConfigError, PayloadError, ProtocolError
from atoll.secagg import Channel, Identity, Moment, roster_verifier

pytest.importorskip("tenseal")

NAMES = ("ada", "bob", "cy", "dee")
IDENTITIES = {name: Identity.new() for name in NAMES}
VERIFY = roster_verifier({name: one.public for name, one in IDENTITIES.items()})
CHANNELS = (Channel("update", 3000, 2.0, 25), Channel("weight", 1, 512.0, 25))
ROOT = bytes(range(32))


def _agreed(exchange: int = 1, attempt: int = 0, **told: object) -> Agreed:
    moment = Moment("run", 1, exchange, attempt)
    return replace(Agreed(moment, NAMES, "ada", 3, CHANNELS), **told)


def _silo(name: str, store: Store | None = None) -> Silo:
    return Silo(name, IDENTITIES[name].sign, VERIFY, store or Held())


def _values(name: str) -> dict[str, NDArray[np.float64]]:
    draw = np.random.default_rng(ord(name[0]))
    return {"update": draw.uniform(-2, 2, 3000), "weight": np.array([float(ord(name[0]))])}


Sent = dict[str, tuple[NDArray[np.uint64], Mark]]


def _sent(agreed: Agreed, key: bytes, names: tuple[str, ...] = NAMES, root: bytes = ROOT) -> Sent:
    found = {}
    for name in names:
        raw, mark = _silo(name).encrypted(agreed, key, root, _values(name))
        found[name] = (unpack(raw, agreed.rows), Mark.from_bytes(mark))
    return found


def _message(agreed: Agreed, sent: Sent, rows: NDArray[np.uint64] | None = None) -> bytes:
    total = sum((one for one, _ in sent.values()), np.zeros((agreed.rows, 8192), np.uint64))
    marks = {agreed.place(name): mark for name, (_, mark) in sent.items()}
    return Sum(ROOT, marks, reduced(total if rows is None else rows)).to_bytes(agreed)


def test_what_is_decrypted_is_the_sum_to_the_noise_that_hides_the_key() -> None:
    agreed, holder = _agreed(), _silo("ada")
    sent = _sent(agreed, holder.key(agreed))
    words = read_plain(holder.decrypted(agreed, _message(agreed, sent)), agreed)
    update = sum(_values(name)["update"] for name in NAMES)
    gap = words[:3000] * STEP * 2.0 - update
    assert np.abs(gap).max() < 2.0 * 6 * 2.0**-24
    # It is noise, of its deviation, and not an error of the sum.
    assert gap.std() == pytest.approx(2.0 * 2.0**-24, rel=0.1)
    assert words[3000] * STEP * 512 == pytest.approx(sum(map(ord, "abcd")), abs=512 * 6 * 2.0**-24)


def test_a_ciphertext_holds_nothing_in_the_clear_and_is_another_one_each_time() -> None:
    agreed, holder = _agreed(), _silo("ada")
    key = holder.key(agreed)
    one, two = (_sent(agreed, key, ("bob",))["bob"][0] for _ in range(2))
    assert (one != two).mean() > 0.999
    # Uniform modulo the prime: the mean of a polynomial is half of it.
    assert one.astype(np.float64).mean() == pytest.approx(2**53, rel=0.02)


def test_values_outside_of_a_range_count_as_its_end_and_others_are_refused() -> None:
    agreed, holder = _agreed(floor=2, cohort=("ada", "bob")), _silo("ada")
    key, sent = holder.key(agreed), {}
    for name in ("ada", "bob"):
        values = {"update": np.full(3000, 1e9), "weight": np.array([1.0])}
        raw, mark = _silo(name).encrypted(agreed, key, ROOT, values)
        sent[name] = (unpack(raw, agreed.rows), Mark.from_bytes(mark))
    words = read_plain(holder.decrypted(agreed, _message(agreed, sent)), agreed)
    assert words[:3000] * STEP * 2.0 == pytest.approx(4.0, abs=1e-4)
    values["update"][7] = np.nan
    with pytest.raises(PayloadError, match="finite"):
        _silo("bob").encrypted(agreed, key, ROOT, values)


def test_a_key_that_the_server_put_there_is_refused() -> None:
    agreed = _agreed()
    own = Silo("ada", Identity.new().sign, VERIFY, Held()).key(agreed)
    for silo in (_silo("bob"), _silo("ada")):
        with pytest.raises(ProtocolError, match="not signed by ada"):
            silo.check(agreed, own)
        with pytest.raises(ProtocolError, match="not signed by ada"):
            silo.encrypted(agreed, own, ROOT, _values("bob"))
    good = _silo("ada").key(agreed)
    for place in (0, 40, 1000, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        with pytest.raises(ProtocolError):
            _silo("bob").check(agreed, bytes(bad))
    for other in (_agreed(2), _agreed(attempt=1), _agreed(floor=2), _agreed(holder="bob"),
                  _agreed(cohort=NAMES[:3])):  # fmt: skip
        with pytest.raises(ProtocolError, match="another sum"):
            _silo("bob").check(other, good)


@pytest.mark.parametrize("what", ["secret", "parameters", "nothing", "cut", "large"])
def test_a_context_that_the_holder_should_not_have_signed_is_refused(what: str) -> None:
    import tenseal as ts

    agreed = _agreed()
    scheme = ts.SCHEME_TYPE.CKKS
    context = ts.context(scheme, 4096, coeff_mod_bit_sizes=[54, 54])
    context.global_scale = 2.0**46 if what == "parameters" else 2.0**47
    raw = context.serialize(
        save_public_key=what != "nothing", save_secret_key=what == "secret",
        save_galois_keys=False, save_relin_keys=False,
    )  # fmt: skip
    raw = {"cut": raw[:5000], "large": raw + bytes(200_000)}.get(what, raw)
    message = PublicKey(bytes(range(32)), raw).to_bytes(agreed, IDENTITIES["ada"].sign)
    with pytest.raises(ProtocolError):
        _silo("bob").encrypted(agreed, message, ROOT, _values("bob"))


def _twice(sent: Sent) -> NDArray[np.uint64]:
    return 3 * sent["bob"][0]


def _one_alone(sent: Sent) -> NDArray[np.uint64]:
    return sent["bob"][0].copy()


def _one_row_of_one(sent: Sent) -> NDArray[np.uint64]:
    total = sum(rows for rows, _ in sent.values())
    total[1] = sent["bob"][0][1]
    return total


def _without_one(sent: Sent) -> NDArray[np.uint64]:
    return sum(rows for name, (rows, _) in sent.items() if name != "dee")


def _a_stranger_more(sent: Sent) -> NDArray[np.uint64]:
    draw = np.random.default_rng(1)
    total = sum(rows for rows, _ in sent.values())
    return total + draw.integers(0, 2**54, total.shape, np.uint64)


@pytest.mark.parametrize(
    "change", [_twice, _one_alone, _one_row_of_one, _without_one, _a_stranger_more]
)
def test_what_is_not_the_sum_of_these_clients_stays_closed(
    change: Callable[[Sent], NDArray[np.uint64]],
) -> None:
    agreed, holder = _agreed(), _silo("ada")
    sent = _sent(agreed, holder.key(agreed))
    with pytest.raises(ProtocolError, match="not the sum of what these clients sent"):
        holder.decrypted(agreed, _message(agreed, sent, change(sent)))
    # And the key is gone: there is no second try at what was sent under it.
    with pytest.raises(ProtocolError, match="no key"):
        holder.decrypted(agreed, _message(agreed, sent))
    again = _agreed(attempt=1)
    sent = _sent(again, holder.key(again))
    assert holder.decrypted(again, _message(again, sent))


def test_too_few_are_refused_and_an_exchange_is_decrypted_once() -> None:
    agreed, holder = _agreed(), _silo("ada")
    sent = _sent(agreed, holder.key(agreed))
    few = {name: sent[name] for name in ("bob", "cy")}
    with pytest.raises(
        ProtocolError, match="the sum of 2 clients: ada decrypts none of fewer than 3"
    ):
        holder.decrypted(agreed, _message(agreed, few))
    more = {name: sent[name] for name in ("bob", "cy", "dee")}
    assert holder.decrypted(agreed, _message(agreed, more))
    for ask in (lambda: holder.decrypted(agreed, _message(agreed, sent)),
                lambda: holder.key(agreed), lambda: holder.key(_agreed(attempt=1))):  # fmt: skip
        with pytest.raises(ProtocolError, match=r"no key|has decrypted"):
            ask()


def test_clients_that_did_not_sign_or_were_sent_another_model_are_found_out() -> None:
    agreed, holder = _agreed(), _silo("ada")
    key = holder.key(agreed)
    sent = _sent(agreed, key)
    forged = dict(sent)
    forged["dee"] = (sent["dee"][0], replace(sent["dee"][1], agreeing=sent["cy"][1].agreeing))
    other = {**sent, **_sent(agreed, key, ("dee",), root=bytes(32))}
    for wrong in (forged, other, {**sent, "dee": sent["cy"]}):
        with pytest.raises(ProtocolError, match="dee did not sign"):
            holder.decrypted(agreed, _message(agreed, wrong))
    with pytest.raises(ProtocolError, match="ada holds"):
        _silo("bob").decrypted(agreed, _message(agreed, sent))
    with pytest.raises(ProtocolError, match="ada holds"):
        _silo("bob").key(agreed)


def test_messages_of_other_lengths_and_coefficients_beyond_the_modulus_are_refused() -> None:
    agreed, holder = _agreed(), _silo("ada")
    sent = _sent(agreed, holder.key(agreed))
    good = _message(agreed, sent)
    for bad in (good[:-1], good + b"\0", b"", good[:70], good[:64] + b"\xff" * 4 + good[68:],
                good[:-14] + b"\xff" * 14):  # fmt: skip
        with pytest.raises(ProtocolError):
            holder.decrypted(agreed, bad)
    answer = holder.decrypted(agreed, good)
    for bad in (answer[:-1], answer + b"\0", bytes(len(answer))):
        with pytest.raises(ProtocolError):
            read_plain(bad, agreed)


def test_the_key_is_in_a_file_of_its_holder_and_outlives_a_kill(tmp_path: Path) -> None:
    agreed, folder = _agreed(), tmp_path / "secagg"
    key = _silo("ada", Folder(folder)).key(agreed)
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert _silo("ada", Folder(folder)).key(agreed) == key
    sent = _sent(agreed, key)
    assert _silo("ada", Folder(folder)).decrypted(agreed, _message(agreed, sent))
    assert path.stat().st_size < 100
    with pytest.raises(ProtocolError, match="has decrypted"):
        _silo("ada", Folder(folder)).key(agreed)
    path.write_bytes(b"\0" * 9)
    with pytest.raises(ProtocolError):
        _silo("ada", Folder(folder)).key(_agreed(2))


@pytest.mark.parametrize(
    "told",
    [{"cohort": NAMES[:2]}, {"cohort": tuple(f"c{n:02}" for n in range(21))},
     {"cohort": ("bob", "ada", "cy")}, {"channels": (Channel("update", 2**21 + 1, 1.0, 25),)}],
)  # fmt: skip
def test_cohorts_and_updates_beyond_the_bounds_are_refused(told: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        _agreed(**told)


def test_where_tenseal_is_missing_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "tenseal")
    paths = [path for path in sys.path if not (Path(path) / "tenseal").is_dir()]
    monkeypatch.setattr(sys, "path", paths)
    with pytest.raises(ConfigError, match=r"pip install 'atoll\[he\]'"):
        check_installed()
