"""Secret randomness: its distribution, its addresses, and what a restart repeats."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from atoll.errors import PrivacyError
from atoll.noise import Secret, Stream, derive, standard_normal

KEY = bytes(range(32))


def test_a_stream_is_aes_in_counter_mode_under_the_key_of_its_address() -> None:
    own = derive(KEY, "noise", 3)
    want = Cipher(algorithms.AES(own), modes.CTR(bytes(16))).encryptor().update(bytes(80))
    stream = Stream(KEY, "noise", 3)
    got = np.concatenate([stream.words(3), stream.words(7)])
    assert got.tobytes() == want


def test_addresses_differ() -> None:
    places: list[tuple[str | int, ...]] = [(), ("a",), ("ab",), ("a", "b"), (1,), ("1",), (1, 1)]
    assert len({derive(KEY, *place) for place in places}) == len(places)


def test_gaussian_noise_has_its_variance_and_its_distribution() -> None:
    values = standard_normal(Stream(KEY, "test"), (1000, 1000)).numpy().reshape(-1)
    assert abs(values.var() - 1) < 0.01
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert stats.kstest(np.diff(values)[::2] / np.sqrt(2), "norm").pvalue > 1e-3


def test_coins_have_their_probability() -> None:
    flips = Stream(KEY, "cohort").coins(0.1, 1_000_000)
    assert abs(flips.mean() - 0.1) < 5 * np.sqrt(0.09 / 1e6)
    assert not Stream(KEY).coins(0.0, 1000).any()
    assert Stream(KEY).coins(1.0, 1000).all()


def test_two_secrets_share_no_noise(tmp_path: Path) -> None:
    one, other = Secret(tmp_path / "one"), Secret(tmp_path / "other")
    assert one.key(0) != other.key(0)
    assert one.key(0) != one.key(1)


def test_a_restart_repeats_its_noise_until_the_release_is_committed(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "secret")
    keys, names = [secret.key(e) for e in range(5)], [secret.name(e) for e in range(5)]
    again = Secret(tmp_path / "secret")
    assert [again.key(e) for e in range(5)] == keys
    again.commit(2)
    later = Secret(tmp_path / "secret")
    assert later.next == 3
    assert [later.key(e) for e in (3, 4)] == keys[3:]
    with pytest.raises(PrivacyError, match="exchange 2 was released and its key forgotten"):
        later.key(2)
    later.commit(1)
    assert later.next == 3
    later.anew(1)
    assert later.name(1) not in names
    assert later.key(3) not in keys


def test_its_file_is_its_owners_alone_and_is_erased(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "secret")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    secret.commit(7)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    secret.erase()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "raw", [b"", b"atoll secret 2\n", b"x" * 64, b"atoll secret 2\n" + b"y" * 73]
)
def test_a_changed_file_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(raw)
    with pytest.raises(PrivacyError, match="no secret of a run"):
        Secret(tmp_path / "secret")
