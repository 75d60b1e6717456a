"""Whatever is not the sum of what the marked clients sent is not decrypted, nearly so or not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from atoll.ckks import CHALLENGE, Answer, Challenge, Held, Mark, products, proved, unpack
from atoll.ckks.packed import pack
from atoll.ckks.scheme import COEFFICIENTS, DEGREE, MODULUS, decrypted, private_context
from atoll.errors import ProtocolError
from atoll.secagg import Channel
from atoll.secagg.masks import stream
from atoll.secagg.wire import Reader
from tests.support.encrypted import (
    IDENTITIES,
    ROOT,
    VERIFY,
    Sent,
    agreed_on,
    answers_of,
    challenged,
    message_of,
    opened,
    sent_by,
    silo,
    total_of,
)

pytest.importorskip("tenseal")

# A polynomial with small whole coefficients that is 0 to 1e-11 at the first two places of a
# ciphertext, and about 50 at all others: lattice reduction finds such for any few places.
SPARING = {
    171: 12, 306: -10, 718: 20, 1100: 49, 1375: -26, 1424: 36, 2043: 17,
    2111: -15, 2263: 30, 2864: 47, 3162: 19, 3521: -33, 3707: 27, 3772: 14,
}  # fmt: skip


def _sha(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


def _places(polynomial: dict[int, int]) -> NDArray[np.float64]:
    """By what a product with a polynomial multiplies each number of a ciphertext."""
    powers = [pow(3, place, 2 * DEGREE) for place in range(DEGREE // 2)]
    at = np.exp(1j * np.pi * np.array(powers) / DEGREE)
    return np.sum([value * at**power for power, value in polynomial.items()], axis=0).real


def _smallest_root() -> int:
    """The smallest number whose power `DEGREE` is -1 modulo the prime, which ciphertexts are
    written by."""
    bases = (pow(base, (MODULUS - 1) // (2 * DEGREE), MODULUS) for base in range(2, 99))
    root = next(one for one in bases if pow(one, DEGREE, MODULUS) == MODULUS - 1)
    return min(pow(root, odd, MODULUS) for odd in range(1, 2 * DEGREE, 2))


def _multiplied(rows: NDArray[np.uint64], polynomial: dict[int, int]) -> NDArray[np.uint64]:
    """Ciphertexts times a public polynomial, for which nobody needs a key."""
    root = _smallest_root()
    powers = [1]
    for _ in range(2 * DEGREE - 1):
        powers.append(powers[-1] * root % MODULUS)
    turned = [2 * int(f"{place:012b}"[::-1], 2) + 1 for place in range(DEGREE)]
    values = [
        sum(c * powers[k * odd % (2 * DEGREE)] for k, c in polynomial.items()) % MODULUS
        for odd in turned
    ]
    return (rows.astype(object) * np.array(values * 2, object) % MODULUS).astype(np.uint64)


def test_a_server_cannot_add_a_multiple_of_one_client_that_spares_some_places() -> None:
    channels = (Channel("update", 2048, 1.0, 25),)
    agreed, store = agreed_on(channels=channels), Held()
    holder, sent, values = silo("ada", store), dict[str, tuple[NDArray[np.uint64], Mark]](), {}
    key = holder.key(agreed)
    for name in agreed.cohort:
        values[name] = np.random.default_rng(ord(name[0])).normal(0, 1e-3, 2048)
        raw, mark = silo(name).encrypted(agreed, key, ROOT, {"update": values[name]})
        sent[name] = (unpack(raw, agreed.rows), Mark.from_bytes(mark))
    changed = (total_of(sent) + _multiplied(sent["cy"][0], SPARING)) % np.uint64(MODULUS)

    # It is an attack: what would be decrypted is right where nothing is multiplied, within range,
    # and shows one client's values everywhere else.
    reader = Reader(store.load("run").secret, "a key")
    reader.blob()
    (shown,) = decrypted(private_context(reader.blob()), changed)
    times = _places(SPARING)
    # Values of a thousandth; encryption adds some billionths, which no test may depend on.
    assert np.abs(shown[:2] - sum(values.values())[:2]).max() < 1e-7
    assert np.abs(shown).max() < 4
    large = np.abs(times) > 25
    assert np.corrcoef(shown[large] / times[large], values["cy"][large])[0, 1] > 0.99

    message = message_of(agreed, sent, changed)
    with pytest.raises(ProtocolError, match="not the sum of what these clients sent"):
        opened(agreed, holder, sent, message)


def _twice(sent: Sent) -> NDArray[np.uint64]:
    return total_of(sent) + sent["bob"][0]


def _one_alone(sent: Sent) -> NDArray[np.uint64]:
    return sent["bob"][0].copy()


def _one_row_of_one(sent: Sent) -> NDArray[np.uint64]:
    total = total_of(sent)
    total[1] = sent["bob"][0][1]
    return total


def _without_one(sent: Sent) -> NDArray[np.uint64]:
    return total_of({name: one for name, one in sent.items() if name != "dee"})


def _a_stranger_more(sent: Sent) -> NDArray[np.uint64]:
    draw = np.random.default_rng(1)
    return total_of(sent) + draw.integers(0, 2**54, (2, COEFFICIENTS), np.uint64)


def _one_coefficient(sent: Sent) -> NDArray[np.uint64]:
    total = total_of(sent)
    total[1, 8000] += 1
    return total


def _two_that_cancel(sent: Sent) -> NDArray[np.uint64]:
    total = total_of(sent)
    total[0, 5] += 1
    total[0, 6] -= 1
    return total


CHANGES = (_twice, _one_alone, _one_row_of_one, _without_one, _a_stranger_more, _one_coefficient,
           _two_that_cancel)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_the_sum_of_these_clients_stays_closed(
    change: Callable[[Sent], NDArray[np.uint64]],
) -> None:
    agreed, holder = agreed_on(), silo("ada")
    sent = sent_by(agreed, holder.key(agreed))
    with pytest.raises(ProtocolError, match="not the sum of what these clients sent"):
        opened(agreed, holder, sent, message_of(agreed, sent, change(sent)))
    # Nothing of it was decrypted: what is their sum can still be.
    assert opened(agreed, holder, sent)


def test_answers_are_of_one_total_one_key_and_one_client() -> None:
    agreed, holder = agreed_on(), silo("ada")
    key = holder.key(agreed)
    sent = sent_by(agreed, key)
    message = message_of(agreed, sent)
    good = answers_of(agreed, key, sent, challenged(agreed, holder, message))
    more = {name: sent[name] for name in ("ada", "bob", "cy")}
    other = answers_of(agreed, key, more, challenged(agreed, holder, message_of(agreed, more)))
    changed = message_of(agreed, sent, _one_coefficient(sent))
    for asked, answers, why in (
        (message, {**good, 1: other[1]}, "bob did not answer"),
        (message, {**good, 1: good[2]}, "bob did not answer"),
        (message, {place: good[place] for place in (0, 1, 2)}, "dee did not answer"),
        (message, {**good, 1: replace(good[1], products=good[2].products)}, "bob did not"),
        (changed, good, "ada did not answer"),
    ):
        with pytest.raises(ProtocolError, match=why):
            holder.decrypted(agreed, proved(answers, asked))
    # A wrong answer of a client that signs it closes the sum, and opens none.
    wrong = Challenge.from_bytes(challenged(agreed, holder, message), agreed, _sha(key), VERIFY)
    off = Answer(((good[1].products[0] + 1) % MODULUS, *good[1].products[1:]))
    signed = IDENTITIES["bob"].sign(off.statement(agreed, _sha(key), wrong, sent["bob"][1]))
    with pytest.raises(ProtocolError, match="not the sum"):
        holder.decrypted(agreed, proved({**good, 1: replace(off, signature=signed)}, message))
    assert holder.decrypted(agreed, proved(good, message))


def test_a_challenge_is_of_one_hash_and_only_the_holder_s_is_answered() -> None:
    agreed, holder = agreed_on(), silo("ada")
    key = holder.key(agreed)
    sent = sent_by(agreed, key, ("bob",))
    one, two = (holder.challenge(agreed, agreed.digest + bytes([n]) * 32) for n in (1, 2))
    assert len(one) == CHALLENGE
    assert one[64:96] != two[64:96]
    raw, bob = pack(sent["bob"][0]), silo("bob")
    assert bob.answer(agreed, key, raw, one) != bob.answer(agreed, key, raw, two)
    assert bob.answer(agreed, key, raw, one) == bob.answer(agreed, key, raw, one)
    again = agreed_on(attempt=1)
    other = silo("ada").key(agreed)
    forged = Challenge(one[32:64], bytes(32)).to_bytes(agreed, _sha(key), IDENTITIES["cy"].sign)
    for about, under, bad in (
        (agreed, key, forged), (agreed, other, one), (agreed, key, one[:-1]),
        (agreed, key, one[:70] + b"\1" + one[71:]), (again, key, one),
    ):  # fmt: skip
        with pytest.raises(ProtocolError, match="challenge"):
            bob.answer(about, under, raw, bad)
    for bad in (bytes(64), agreed.digest, agreed.digest + bytes(33)):
        with pytest.raises(ProtocolError, match="hash of an encrypted sum"):
            holder.challenge(agreed, bad)
    with pytest.raises(ProtocolError, match="ada holds"):
        bob.challenge(agreed, agreed.digest + bytes(32))
    with pytest.raises(ProtocolError, match="no key"):
        holder.challenge(again, again.digest + bytes(32))


def test_products_are_those_of_whole_numbers() -> None:
    draw, seed = np.random.default_rng(3), os.urandom(32)
    for rows in (
        draw.integers(0, MODULUS, (3, COEFFICIENTS), np.uint64),
        np.full((3, COEFFICIENTS), MODULUS - 1, np.uint64),
    ):
        drawn = stream(seed).update(bytes(16 * rows.size))
        words = np.frombuffer(drawn, "<u4").reshape(3, 4, COEFFICIENTS)
        want = tuple(
            sum(int(w) * int(c) for w, c in zip(words[:, one].flat, rows.flat, strict=True))
            % MODULUS
            for one in range(4)
        )
        assert products(seed, rows) == want


def test_products_add_up_as_ciphertexts_do() -> None:
    draw, seed = np.random.default_rng(4), os.urandom(32)
    rows = draw.integers(0, MODULUS, (20, 2, COEFFICIENTS), np.uint64)
    total = rows.sum(axis=0, dtype=np.uint64) % np.uint64(MODULUS)
    each = zip(*(products(seed, one) for one in rows), strict=True)
    assert tuple(sum(some) % MODULUS for some in each) == products(seed, total)
