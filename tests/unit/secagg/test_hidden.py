"""What the server is sent tells it nothing: no vector, no weight, no seed that could be guessed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from scipy.stats import chi2

from atoll.secagg import (
    Channel,
    Configuration,
    Identity,
    Kind,
    Moment,
    claim,
    quantise,
    roster_verifier,
)
from atoll.secagg.client import mask, open_sum, rounding_seed
from atoll.secagg.keys import common, derive, private_key
from atoll.secagg.masks import add_streams
from atoll.secagg.messages import Survivors, write_each, write_one
from atoll.secagg.session import begun
from tests.support.sums import ROOT, cohort, configured, inbox_of, vector


def _chi_square(seed: int | None) -> float:
    """Of the 256 byte values of a masked vector of zeros."""
    configuration = configured(3, sizes=(40_000,))
    people = cohort(configuration, seed)
    states, sealed = people.shared(*people.advertised(seed))
    zeros = np.zeros(configuration.size, np.int32)
    _, masked = mask(states[0], inbox_of(0, sealed), ROOT, zeros)
    counts = np.bincount(np.frombuffer(masked.tobytes(), np.uint8), minlength=256)
    expected = 4 * configuration.size / 256
    return float(((counts - expected) ** 2 / expected).sum())


def test_masked_zeros_are_as_random_bytes() -> None:
    # 95 % of random bytes are in this range. Fixed exchanges: chance misses 19 of 20 often enough.
    assert sum(208 <= _chi_square(seed) <= 301 for seed in range(40, 60)) >= 19
    # All in one, with keys that nobody fixed: out of this range once in a million.
    pooled = sum(_chi_square(None) for _ in range(20))
    assert 5e-7 < chi2.cdf(pooled, 20 * 255) < 1 - 5e-7


def test_a_vector_is_under_one_mask_for_each_neighbour_and_its_own() -> None:
    """Without any one of them it would still be hidden; with all of them off it is there."""
    configuration = configured(4, sizes=(50,))
    people = cohort(configuration)
    states, sealed = people.shared(*people.advertised())
    words = vector(configuration, 1)
    _, masked = mask(states[1], inbox_of(1, sealed), ROOT, words.copy())
    session = begun(configuration, states[1].adverts)
    key = private_key(derive(states[1].secret, "masking key"))[0]
    pairs = {
        at: session.pair_seed(common(key, session.adverts[at].masking), ROOT, 1, at)
        for at in (0, 2, 3)
    }
    own = session.own_seed(derive(states[1].secret, "own mask"), 1)
    plus, minus = [own, pairs[2], pairs[3]], [pairs[0]]
    bare = masked.copy()
    add_streams(bare, minus, plus)
    np.testing.assert_array_equal(bare.view(np.int32), words)
    for seed in (*plus, *minus):
        partly = bare.copy()
        add_streams(partly, [seed])
        assert np.count_nonzero(partly.view(np.int32) == words) <= 1


def test_seeds_have_256_bits() -> None:
    """Each bit of the seeds of pairwise masks is set half of the time: no text, no folding."""
    configuration, ones, count = configured(40), np.zeros(256), 0
    people = cohort(configuration)
    states, adverts = people.advertised()
    session = begun(configuration, adverts)
    seeds = set()
    for one, state in states.items():
        key = private_key(derive(state.secret, "masking key"))[0]
        for other in range(one):
            agreed = common(key, adverts[other].masking)
            seed = session.pair_seed(agreed, ROOT, one, other)
            seeds.add(seed)
            ones += np.unpackbits(np.frombuffer(seed, np.uint8))
            count += 1
    assert len(seeds) == count == 780
    # Six standard deviations.
    assert np.all(np.abs(ones / count - 0.5) < 6 * 0.5 / np.sqrt(count))


def test_both_ends_of_a_pair_have_one_seed_and_other_sessions_another() -> None:
    configuration = configured(5)
    people = cohort(configuration)
    states, adverts = people.advertised()
    session = begun(configuration, adverts)
    first, second = (private_key(derive(states[at].secret, "masking key"))[0] for at in (1, 3))
    agreed = common(first, adverts[3].masking)
    assert agreed == common(second, adverts[1].masking)
    seed = session.pair_seed(agreed, ROOT, 1, 3)
    assert seed == session.pair_seed(agreed, ROOT, 3, 1)
    fewer = begun(configuration, {at: adverts[at] for at in range(4)})
    others = {
        session.pair_seed(agreed, bytes(32), 1, 3), session.pair_seed(agreed, ROOT, 1, 2),
        fewer.pair_seed(agreed, ROOT, 1, 3), session.own_seed(agreed, 1),
        session.sealing_key(agreed, 1, 3), session.sealing_key(agreed, 3, 1),
    }  # fmt: skip
    assert len(others | {seed}) == 7


def test_nothing_of_a_client_is_on_the_wire() -> None:
    """Neither its values, as floats or integers, nor how many rows it has."""
    clients, size = 6, 200
    names = tuple(f"site-{number}" for number in range(clients))
    channels = (
        Channel.fitted("update", size, 1.0, clients),
        Channel.fitted("rows", 1, 1e6, clients),
    )
    configuration = Configuration(Moment("r", 1, 1), names, 5, 4, 4, 5, channels)
    planted = np.linspace(-0.9, 0.9, size).astype(np.float32)
    people, rows, wire = cohort(configuration), 271_828, bytearray()
    states, adverts = people.advertised()
    wire += write_each(Kind.ADVERTS, configuration, {a: x.to_bytes() for a, x in adverts.items()})
    states, sealed = people.shared(states, adverts)
    values = {"update": planted, "rows": np.array([float(rows)])}
    words = {
        at: quantise(channels, values, rounding_seed(state)).words for at, state in states.items()
    }
    states, masked = people.masked(states, sealed, words)
    signed, signatures = people.signed(states, Survivors(tuple(range(6)), ()))
    for at, inbox in sealed.items():
        wire += write_each(Kind.SHARES, configuration, inbox)
        wire += write_one(Kind.MASKED, configuration, masked[at].data.cast("B"))
        wire += write_one(Kind.SIGNATURE, configuration, signatures[at])
        opened = open_sum(signed[at], signatures, people.verify)[1]
        wire += write_each(Kind.OPENING, configuration, opened)
    sent = bytes(wire)
    needles = [planted[at : at + 2].tobytes() for at in range(size - 1)]
    needles += [planted[at : at + 2].astype(np.float64).tobytes() for at in range(size - 1)]
    needles += [words[0][at : at + 2].tobytes() for at in range(size)]
    needles += [
        str(rows).encode(), rows.to_bytes(8, "little"), rows.to_bytes(8, "big"),
        np.float64(rows).tobytes(), names[0].encode(),
    ]  # fmt: skip
    assert len(sent) > clients * 4 * size
    assert [needle for needle in needles if needle in sent] == []


def test_an_identity_is_vouched_for_by_a_sites_certificate_key() -> None:
    site, identity = ec.generate_private_key(ec.SECP384R1()), Identity.new()
    vouched = site.sign(claim("site-a", identity.public), ec.ECDSA(SHA384()))
    site.public_key().verify(vouched, claim("site-a", identity.public), ec.ECDSA(SHA384()))
    assert len({claim(name, key) for name in ("a", "b") for key in (bytes(32), b"b" * 32)}) == 4
    again = Identity(identity.private)
    verify = roster_verifier({"site-a": identity.public})
    assert verify("site-a", b"message", again.sign(b"message"))
    assert not verify("site-a", b"other", again.sign(b"message"))
    assert not verify("site-b", b"message", again.sign(b"message"))
    assert not verify("site-a", b"message", again.sign(b"message")[:-1])


def test_the_package_needs_no_torch() -> None:
    command = (
        "import sys, atoll.secagg; print(sorted({'torch', 'scipy', 'flwr'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
