"""The tree against RFC 6962's definition and known roots, and proofs against tampering."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import ProtocolError
from atoll.secagg import Proof, check_slice, tree

# Inputs and roots from the test vectors of Certificate Transparency's reference code.
INPUTS = [bytes.fromhex(x) for x in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
TOPS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _written_out(slices: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1."""
    if len(slices) == 1:
        return _hash(b"\0", slices[0])
    split = 1
    while split * 2 < len(slices):
        split *= 2
    return _hash(b"\1", _written_out(slices[:split]), _written_out(slices[split:]))


@pytest.mark.parametrize("count", TOPS)
def test_known_roots(count: int) -> None:
    assert _written_out(INPUTS[:count]).hex() == TOPS[count]
    expected = _hash(b"\2", count.to_bytes(8, "big"), bytes.fromhex(TOPS[count]))
    assert tree(INPUTS[:count]).root == expected


@pytest.mark.parametrize("count", [*range(1, 20), 33, 64, 65])
def test_every_slice_is_proved_and_stands_at_its_place_alone(count: int) -> None:
    slices = [bytes([number]) * number for number in range(count)]
    made = tree(slices)
    assert made.root == _hash(b"\2", count.to_bytes(8, "big"), _written_out(slices))
    for number, content in enumerate(slices):
        proof = made.proof(number)
        check_slice(made.root, memoryview(content), proof)
        assert Proof.from_bytes(proof.to_bytes()) == proof
        assert len(proof.path) <= max(count - 1, 1).bit_length()
        for other in range(count):
            if other != number:
                with pytest.raises(ProtocolError, match="another model than its root says"):
                    check_slice(made.root, slices[other], proof)
                with pytest.raises(ProtocolError, match=f"slice {other} of {count}"):
                    check_slice(made.root, content, replace(proof, index=other))


@given(st.integers(1, 40), st.data())
@settings(deadline=None, max_examples=150)
def test_a_changed_proof_proves_nothing(count: int, data: st.DataObject) -> None:
    slices = [hashlib.sha256(bytes([number])).digest() for number in range(count)]
    made, at = tree(slices), data.draw(st.integers(0, count - 1))
    raw = made.proof(at).to_bytes()
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProtocolError):
        check_slice(made.root, slices[at], Proof.from_bytes(bytes(changed)))
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(ProtocolError):
        check_slice(made.root, slices[at], Proof.from_bytes(raw[:cut]))
    with pytest.raises(ProtocolError):
        check_slice(made.root, slices[at], Proof.from_bytes(raw + bytes(32)))


def test_a_node_is_no_slice_and_a_part_no_tree() -> None:
    made = tree(INPUTS)
    left, right = made.levels[-2]
    with pytest.raises(ProtocolError):
        check_slice(made.root, left + right, Proof(0, 1, ()))
    with pytest.raises(ProtocolError):
        check_slice(made.root, b"\1" + left + right, Proof(0, 1, ()))
    inner = Proof(0, 2, (right,))
    for level in made.levels[-3]:
        with pytest.raises(ProtocolError):
            check_slice(made.root, level, inner)
    with pytest.raises(ProtocolError):
        check_slice(tree(INPUTS[:7]).root, INPUTS[0], made.proof(0))


def test_proofs_of_unlikely_length_are_not_read() -> None:
    for size in (0, 15, 17, 16 + 31, 16 + 32 * 65):
        with pytest.raises(ProtocolError, match="32 for each level"):
            Proof.from_bytes(bytes(size))
    with pytest.raises(ProtocolError):
        check_slice(
            tree(INPUTS).root, INPUTS[0], Proof(2**63, 2**63 + 8, tree(INPUTS).proof(0).path)
        )
