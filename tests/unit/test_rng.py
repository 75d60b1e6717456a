"""Every address is its own stream, and always the same one."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll import rng

parts = st.lists(st.one_of(st.text(max_size=4), st.integers(-3, 30)), max_size=3).map(tuple)


@given(st.integers(0, 3), parts, st.integers(0, 3), parts)
def test_two_addresses_meet_only_when_they_are_the_same(
    seed: int, address: tuple[str | int, ...], other: int, place: tuple[str | int, ...]
) -> None:
    same = (seed, address) == (other, place)
    assert (rng.derive(seed, *address) == rng.derive(other, *place)) == same


def test_parts_are_kept_apart() -> None:
    addresses: list[tuple[str | int, ...]] = [
        ("ab",), ("a", "b"), ("", "ab"), ("ab", ""), (1,), ("1",), (12,), (1, 2), (),
    ]  # fmt: skip
    assert len({rng.derive(0, *address) for address in addresses}) == len(addresses)


def test_a_seed_fits_both_libraries() -> None:
    seeds = [rng.derive(seed, "x", k) for seed, k in itertools.product((-1, 0, 2**80), range(50))]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_a_derived_seed_never_changes() -> None:
    """Runs are resumed across versions, so these numbers are part of the format."""
    written_out = hashlib.blake2b(b"i1:7s7:dropouti1:3s3:adai2:12", digest_size=8).digest()
    assert rng.derive(7, "dropout", 3, "ada", 12) == int.from_bytes(written_out, "little") // 2
    assert rng.derive(7, "dropout", 3, "ada", 12) == 4441713046861243361
    assert rng.derive(0) == 4774516902939907285


def test_generators_repeat_and_touch_nothing_global() -> None:
    before = torch.get_rng_state(), str(np.random.get_state())
    draws = [torch.rand(4, generator=rng.generator(1, "x")) for _ in range(2)]
    samples = [rng.numpy_generator(1, "x").random(4) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])
    assert np.array_equal(samples[0], samples[1])
    assert torch.equal(before[0], torch.get_rng_state())
    assert str(np.random.get_state()) == before[1]
