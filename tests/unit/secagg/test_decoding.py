"""Wrong shares: the secret in spite of them, and who opened them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.secagg import decoding
from atoll.secagg.decoding import recovered
from atoll.secagg.shamir import PRIME, SHARE, split

SECRET, SEED = bytes(range(100, 132)), bytes(range(32))


def _spoiled(count: int, threshold: int, wrong: list[int], seed: int = 0) -> dict[int, bytes]:
    """Shares at 1, 2, …, with others in place of those at `wrong`."""
    shares = split(SECRET, threshold, SEED, range(1, count + 1))
    drawn = np.random.default_rng(seed)
    for place in wrong:
        other = int.from_bytes(shares[place], "big") + 1 + int(drawn.integers(0, 2**62))
        shares[place] = (other % PRIME).to_bytes(SHARE, "big")
    return shares


# Few shares are tried set by set, down to a single spare one; many give way up to half the spare.
@pytest.mark.parametrize(("count", "threshold", "most"), [
    (5, 4, 1), (7, 5, 2), (10, 6, 4), (13, 7, 6), (12, 12, 0),
    (20, 12, 4), (44, 28, 8), (49, 28, 10), (90, 56, 17),
])  # fmt: skip
def test_as_many_wrong_shares_as_can_be_are_found(count: int, threshold: int, most: int) -> None:
    drawn = np.random.default_rng(count)
    for wrong in range(most + 1):
        chosen = sorted(drawn.choice(count, wrong, replace=False).tolist())
        places = [place + 1 for place in chosen]
        found = recovered(_spoiled(count, threshold, places), threshold, SECRET.__eq__)
        assert found is not None
        assert found[0] == SECRET
        # Where the first ones are right, nobody looks at the others.
        assert found[1] == (set() if min(places, default=count) > threshold else set(places))
    too_many = list(range(1, count - threshold + 2))
    assert recovered(_spoiled(count, threshold, too_many), threshold, SECRET.__eq__) is None


@given(st.integers(1, 30), st.integers(0, 12), st.integers(0, 2**32), st.data())
@settings(deadline=None, max_examples=40)
def test_what_is_found_is_what_was_shared(
    threshold: int, spare: int, seed: int, data: st.DataObject
) -> None:
    count = threshold + spare
    wrong = data.draw(st.lists(st.integers(1, count), max_size=spare // 2, unique=True))
    found = recovered(_spoiled(count, threshold, wrong, seed), threshold, SECRET.__eq__)
    assert found is not None
    assert found[0] == SECRET
    assert found[1] <= set(wrong)


def test_other_sets_of_shares_are_not_looked_for_where_the_first_ones_are_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = []
    monkeypatch.setattr(decoding, "combinations", lambda *of: looked.append(of) or [])
    monkeypatch.setattr(decoding, "_nearest", lambda *of: looked.append(of) or [])
    for count, threshold in ((7, 5), (44, 28)):
        assert recovered(_spoiled(count, threshold, []), threshold, SECRET.__eq__) is not None
        assert looked == []
        assert recovered(_spoiled(count, threshold, [1]), threshold, SECRET.__eq__) is None
        assert len(looked) == 1
        looked.clear()


def test_right_shares_are_combined_once_and_values_outside_the_field_are_wrong_ones() -> None:
    asked = []

    def right(secret: bytes) -> bool:
        asked.append(secret)
        return secret == SECRET

    shares = _spoiled(49, 28, [])
    assert recovered(shares, 28, right) == (SECRET, frozenset())
    assert asked == [SECRET]
    for outside in (b"\xff" * SHARE, (PRIME + 5).to_bytes(SHARE, "big")):
        assert recovered({**shares, 3: outside}, 28, right) == (SECRET, frozenset({3}))
    zeros = {place: bytes(SHARE) for place in shares}
    assert recovered(zeros, 28, right) is None
