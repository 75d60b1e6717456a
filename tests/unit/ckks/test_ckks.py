"""Encrypted sums: they are the sums, and nothing but a sum of enough clients is decrypted."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atoll.ckks import (
    STEP,
    Folder,
    Held,
    Mark,
    PublicKey,
    Silo,
    check_installed,
    proved,
    read_plain,
    reduced,
    unpack,
)
from atoll.ckks.packed import pack
from atoll.ckks.store import Kept
from atoll.errors import ConfigError, PayloadError, ProtocolError
from atoll.secagg import Channel, Identity
from tests.support.encrypted import (
    IDENTITIES,
    NAMES,
    ROOT,
    VERIFY,
    agreed_on,
    answers_of,
    challenged,
    message_of,
    opened,
    sent_by,
    silo,
    values_of,
)

pytest.importorskip("tenseal")


def test_what_is_decrypted_is_the_sum_to_the_noise_that_hides_the_key() -> None:
    agreed, holder = agreed_on(), silo("ada")
    sent = sent_by(agreed, holder.key(agreed))
    words = read_plain(opened(agreed, holder, sent), agreed)
    update = sum(values_of(name)["update"] for name in NAMES)
    gap = words[:3000] * STEP * 2.0 - update
    assert np.abs(gap).max() < 2.0 * 6 * 2.0**-24
    # It is noise, of its deviation, and not an error of the sum.
    assert gap.std() == pytest.approx(2.0 * 2.0**-24, rel=0.1)
    assert words[3000] * STEP * 512 == pytest.approx(sum(map(ord, "abcd")), abs=512 * 6 * 2.0**-24)


def test_a_ciphertext_holds_nothing_in_the_clear_and_is_another_one_each_time() -> None:
    agreed, holder = agreed_on(), silo("ada")
    key = holder.key(agreed)
    one, two = (sent_by(agreed, key, ("bob",))["bob"][0] for _ in range(2))
    assert (one != two).mean() > 0.999
    # Uniform modulo the prime: the mean of a polynomial is half of it.
    assert one.astype(np.float64).mean() == pytest.approx(2**53, rel=0.02)


def test_values_outside_of_a_range_count_as_its_end_and_others_are_refused() -> None:
    agreed, holder = agreed_on(floor=2, cohort=("ada", "bob")), silo("ada")
    key, sent = holder.key(agreed), {}
    for name in ("ada", "bob"):
        values = {"update": np.full(3000, 1e9), "weight": np.array([1.0])}
        raw, mark = silo(name).encrypted(agreed, key, ROOT, values)
        sent[name] = (unpack(raw, agreed.rows), Mark.from_bytes(mark))
    words = read_plain(opened(agreed, holder, sent), agreed)
    assert words[:3000] * STEP * 2.0 == pytest.approx(4.0, abs=1e-4)
    values["update"][7] = np.nan
    with pytest.raises(PayloadError, match="finite"):
        silo("bob").encrypted(agreed, key, ROOT, values)


def test_a_sum_beyond_its_range_is_not_told_and_its_key_decrypts_no_other() -> None:
    agreed, holder = agreed_on(), silo("ada")
    key = holder.key(agreed)
    sent = sent_by(agreed, key)
    rows = reduced(sent["dee"][0] * np.uint64(9))
    mark = Mark(hashlib.sha256(pack(rows).data).digest())
    said = IDENTITIES["dee"].sign(mark.statement(agreed, hashlib.sha256(key).digest(), ROOT))
    more = {**sent, "dee": (rows, replace(mark, signature=said))}
    with pytest.raises(ProtocolError, match="no sum of values within their range"):
        opened(agreed, holder, more)
    with pytest.raises(ProtocolError, match="ada has no key for exchange 1"):
        opened(agreed, holder, sent)
    again = agreed_on(attempt=1)
    assert opened(again, holder, sent_by(again, holder.key(again)))


def test_a_key_that_the_server_put_there_is_refused() -> None:
    agreed = agreed_on()
    own = Silo("ada", Identity.new().sign, VERIFY, Held()).key(agreed)
    for one in (silo("bob"), silo("ada")):
        with pytest.raises(ProtocolError, match="not signed by ada"):
            one.check(agreed, own)
        with pytest.raises(ProtocolError, match="not signed by ada"):
            one.encrypted(agreed, own, ROOT, values_of("bob"))
    good = silo("ada").key(agreed)
    for place in (0, 40, 1000, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        with pytest.raises(ProtocolError):
            silo("bob").check(agreed, bytes(bad))
    for other in (agreed_on(2), agreed_on(attempt=1), agreed_on(floor=2), agreed_on(holder="bob"),
                  agreed_on(cohort=NAMES[:3])):  # fmt: skip
        with pytest.raises(ProtocolError, match="another sum"):
            silo("bob").check(other, good)


@pytest.mark.parametrize("what", ["secret", "parameters", "nothing", "cut", "large"])
def test_a_context_that_the_holder_should_not_have_signed_is_refused(what: str) -> None:
    import tenseal as ts

    agreed = agreed_on()
    scheme = ts.SCHEME_TYPE.CKKS
    context = ts.context(scheme, 4096, coeff_mod_bit_sizes=[54, 54])
    context.global_scale = 2.0**46 if what == "parameters" else 2.0**47
    raw = context.serialize(
        save_public_key=what != "nothing", save_secret_key=what == "secret",
        save_galois_keys=False, save_relin_keys=False,
    )  # fmt: skip
    raw = {"cut": raw[:5000], "large": raw + bytes(200_000)}.get(what, raw)
    message = PublicKey(raw).to_bytes(agreed, IDENTITIES["ada"].sign)
    with pytest.raises(ProtocolError):
        silo("bob").encrypted(agreed, message, ROOT, values_of("bob"))


def test_too_few_are_refused_and_an_exchange_is_decrypted_once() -> None:
    agreed, holder = agreed_on(), silo("ada")
    sent = sent_by(agreed, holder.key(agreed))
    few = {name: sent[name] for name in ("bob", "cy")}
    with pytest.raises(
        ProtocolError, match="the sum of 2 clients: ada decrypts none of fewer than 3"
    ):
        opened(agreed, holder, few)
    more = {name: sent[name] for name in ("bob", "cy", "dee")}
    assert opened(agreed, holder, more)
    for ask in (lambda: opened(agreed, holder, sent),
                lambda: holder.key(agreed), lambda: holder.key(agreed_on(attempt=1))):  # fmt: skip
        with pytest.raises(ProtocolError, match=r"no key|has decrypted"):
            ask()


def test_clients_that_did_not_sign_or_were_sent_another_model_are_found_out() -> None:
    agreed, holder = agreed_on(), silo("ada")
    key = holder.key(agreed)
    sent = sent_by(agreed, key)
    forged = dict(sent)
    forged["dee"] = (sent["dee"][0], replace(sent["dee"][1], hashed=sent["cy"][1].hashed))
    other = {**sent, **sent_by(agreed, key, ("dee",), root=bytes(32))}
    for wrong in (forged, other, {**sent, "dee": sent["cy"]}):
        with pytest.raises(ProtocolError, match="dee did not sign"):
            opened(agreed, holder, wrong)
    with pytest.raises(ProtocolError, match="ada holds"):
        silo("bob").decrypted(agreed, message_of(agreed, sent))
    with pytest.raises(ProtocolError, match="ada holds"):
        silo("bob").key(agreed)


def test_messages_of_other_lengths_and_coefficients_beyond_the_modulus_are_refused() -> None:
    agreed, holder = agreed_on(), silo("ada")
    sent = sent_by(agreed, holder.key(agreed))
    good = message_of(agreed, sent)
    for bad in (good[:-1], good + b"\0", b"", good[:70], good[:64] + b"\xff" * 4 + good[68:],
                good[:-14] + b"\xff" * 14):  # fmt: skip
        with pytest.raises(ProtocolError):
            opened(agreed, holder, sent, bad)
    answer = opened(agreed, holder, sent, good)
    for bad in (answer[:-1], answer + b"\0", bytes(len(answer))):
        with pytest.raises(ProtocolError):
            read_plain(bad, agreed)


def test_the_key_is_in_a_file_of_its_holder_and_outlives_a_kill(tmp_path: Path) -> None:
    agreed, folder = agreed_on(), tmp_path / "secagg"
    key = silo("ada", Folder(folder)).key(agreed)
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert silo("ada", Folder(folder)).key(agreed) == key
    sent = sent_by(agreed, key)
    message = message_of(agreed, sent)
    challenge = challenged(agreed, silo("ada", Folder(folder)), message)
    assert challenged(agreed, silo("ada", Folder(folder)), message) == challenge
    told = proved(answers_of(agreed, key, sent, challenge), message)
    assert silo("ada", Folder(folder)).decrypted(agreed, told)
    assert path.stat().st_size < 100
    with pytest.raises(ProtocolError, match="has decrypted"):
        silo("ada", Folder(folder)).key(agreed)
    path.write_bytes(b"\0" * 9)
    with pytest.raises(ProtocolError):
        silo("ada", Folder(folder)).key(agreed_on(2))


@pytest.mark.parametrize(
    "told",
    [{"cohort": NAMES[:2]}, {"cohort": tuple(f"c{n:02}" for n in range(21))},
     {"cohort": ("bob", "ada", "cy")}, {"channels": (Channel("update", 2**21 + 1, 1.0, 25),)}],
)  # fmt: skip
def test_cohorts_and_updates_beyond_the_bounds_are_refused(told: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        agreed_on(**told)


def test_where_tenseal_is_missing_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "tenseal")
    paths = [path for path in sys.path if not (Path(path) / "tenseal").is_dir()]
    monkeypatch.setattr(sys, "path", paths)
    with pytest.raises(ConfigError, match=r"pip install 'atoll\[he\]'"):
        check_installed()


def test_a_key_that_was_never_used_is_forgotten_with_its_federation(tmp_path: Path) -> None:
    agreed, kept = agreed_on(), Folder(tmp_path)
    silo("ada", kept).key(agreed)
    kept.save("before", Kept(decrypted=7))
    run = agreed.moment.run
    kept.leave(run)
    assert kept.load(run).secret
    kept.leave("next")
    assert not kept.load(run).secret
    assert kept.load("before") == Kept(decrypted=7)
