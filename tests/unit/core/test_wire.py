"""Bytes of records: exact in both directions, and refused when they are not of the agreed form."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from atoll.core import Channel, Context, Failure, Payload, Reply, Request, Tree
from atoll.core.wire import (
    pack,
    pack_payload,
    pack_state,
    unpack,
    unpack_payload,
    unpack_state,
)
from atoll.errors import PayloadError

DTYPES = {
    torch.float64: 8, torch.float32: 4, torch.float16: 2, torch.bfloat16: 2, torch.int64: 8,
    torch.int32: 4, torch.int16: 2, torch.int8: 1, torch.uint8: 1, torch.bool: 1,
}  # fmt: skip
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNTS = st.integers(0, 2**31 - 1)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bits: NaN with a payload, infinities, minus zero, subnormal numbers."""
    dtype = draw(st.sampled_from(list(DTYPES)))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    size = torch.Size(shape).numel() * DTYPES[dtype]
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype == torch.bool:
        raw = bytes(value & 1 for value in raw)
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape)


TREES = st.dictionaries(NAMES, tensors(), max_size=3)
CHANNELS = st.builds(
    Channel,
    TREES,
    st.sampled_from(["mean", "sum", "none"]),
    st.none() | NAMES,
    st.none() | st.floats(0, allow_nan=False, allow_infinity=False),
)
PAYLOADS = st.dictionaries(NAMES, CHANNELS, max_size=3)
CONTEXTS = st.builds(
    Context, st.integers(0, 2**63 - 1), NAMES, COUNTS, COUNTS,
    st.lists(NAMES, max_size=3, unique=True).map(tuple), COUNTS, NAMES,
)  # fmt: skip


def bits(payload: Mapping[str, Channel | Tree]) -> Any:
    """Everything that a payload or a state says, in its order, with raw bytes for values."""
    found = []
    for name, part in payload.items():
        tree = part.tree if isinstance(part, Channel) else part
        facts = (part.reduce, part.weight, part.l2) if isinstance(part, Channel) else ()
        values = [
            (key, value.dtype, value.shape, bytes(value.reshape(-1).view(torch.uint8).tolist()))
            for key, value in tree.items()
        ]
        found.append((name, facts, values))
    return found


@given(PAYLOADS, CONTEXTS)
def test_requests_and_replies_come_back_bit_for_bit(payload: Payload, context: Context) -> None:
    asked = unpack(pack(Request(context, payload, {"own": {"secret": torch.ones(1)}})))
    assert isinstance(asked, Request)
    assert asked.context == context
    assert bits(asked.payload) == bits(payload)
    assert asked.state == {}
    answered = unpack(pack(Reply(context.client, payload)))
    assert isinstance(answered, Reply)
    assert (answered.client, bits(answered.payload)) == (context.client, bits(payload))
    assert bits(unpack_payload(pack_payload(payload))) == bits(payload)


@given(st.dictionaries(NAMES, TREES, max_size=3), CONTEXTS)
def test_states_and_contexts_come_back(state: dict[str, Tree], context: Context) -> None:
    assert bits(unpack_state(pack_state(state))) == bits(state)
    assert unpack(pack(context)) == context


def test_a_failure_comes_back_without_what_moves_a_cursor() -> None:
    plain = Failure("ada", "error", "ValueError: Zeile 3 ist leer\n  ‘müde’ (rows.py:7)")
    assert unpack(pack(plain)) == plain
    odd = unpack(pack(Failure("ada", "error", "\x1b[2J\udc80gone" + "x" * 9_000)))
    assert isinstance(odd, Failure)
    assert odd.message == "?[2J?gone" + "x" * (4_000 - len("?[2J?gone"))


def test_a_record_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "reply.safetensors"
    path.write_bytes(pack(Reply("ada", {"update": Channel({"a/b": torch.arange(3)}, "sum")})))
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["0/a/b"]
        assert file.get_tensor("0/a/b").tolist() == [0, 1, 2]
        facts = json.loads(file.metadata()["facts"])
    assert facts == {
        "record": "reply",
        "client": "ada",
        "channels": [{"name": "update", "reduce": "sum", "weight": None, "l2": None}],
    }


def test_views_and_shared_memory_arrive_as_values_of_their_own() -> None:
    grid = torch.arange(6.0, requires_grad=True).reshape(2, 3)
    sent = {"update": Channel({"t": grid.T, "row": grid[1], "all": grid, "again": grid})}
    found = unpack_payload(pack_payload(sent))["update"].tree
    assert found["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["row"].tolist() == [3, 4, 5]
    assert found["again"].tolist() == grid.tolist()
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) == 4
    assert not any(value.requires_grad for value in found.values())


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Context(-1, "run", 0, 0, (), 0), "context: its numbers are out of range"),
        (Context(0, "run", 0, 0, ("a", "a"), 2), "a client stands twice in its cohort"),
        (Reply("a\ud800", {}), "surrogates not allowed"),
        (Reply("a", {"u": Channel({"\ud800": torch.ones(1)})}), "surrogates not allowed"),
        (Reply("a", {"u": Channel({}, l2=float("inf"))}), "l2: Input should be a finite number"),
        (Reply("a", {"u": Channel({"w": torch.ones(1, dtype=torch.complex64)})}), "complex64"),
        (Reply("a", {"u": Channel({"w": torch.ones(1).to_sparse()})}), "float32, sparse_coo"),
        (Reply("a", {"u": Channel({"w": torch.ones(1, device="meta")})}), "without values"),
    ],
)
def test_what_cannot_travel_is_told_where_it_is_sent(record: Any, why: str) -> None:
    with pytest.raises(PayloadError, match=why):
        pack(record)


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
REPLY = {"record": "reply", "client": "ada", "channels": [
    {"name": "update", "reduce": "mean", "weight": None, "l2": None}]}  # fmt: skip


def blob(
    tensors: object = None, *, facts: object = None, names: object = None, data: bytes = bytes(8)
) -> bytes:
    """A reply of one tensor, written by hand; each part can be another one."""
    metadata = {
        "facts": json.dumps(REPLY if facts is None else facts),
        "names": json.dumps([["w"]] if names is None else names),
    }
    held = {"0/w": TENSOR} if tensors is None else tensors
    assert isinstance(held, dict)
    return framed(json.dumps({"__metadata__": metadata, **held}).encode(), data)


def framed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def reply(**changed: object) -> dict[str, object]:
    return {**REPLY, **changed}


def channel(**changed: object) -> dict[str, object]:
    return reply(channels=[{**REPLY["channels"][0], **changed}])  # type: ignore[index]


def tensor(**changed: object) -> dict[str, object]:
    return {"0/w": {**TENSOR, **changed}}


def test_the_hand_made_reply_is_one() -> None:
    found = unpack(blob())
    assert isinstance(found, Reply)
    assert found.payload["update"].tree["w"].tolist() == [0, 0]


HOSTILE = {
    "nothing": b"",
    "a header without an end": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": framed(b"{nothing"),
    "no UTF-8": framed(b'{"\xff": 1}'),
    "UTF-16": framed('{"a": 1}'.encode("utf-16")),
    "a list": framed(b"[]"),
    "a deep hole": framed(b"[" * 100_000),
    "a long number": framed(b'{"a": ' + b"9" * 5_000 + b"}"),
    "no metadata": framed(json.dumps({"0/w": TENSOR}).encode(), bytes(8)),
    "other metadata": framed(json.dumps({"__metadata__": {"facts": "{}"}}).encode()),
    "metadata that are no text": framed(b'{"__metadata__": {"facts": {}, "names": []}}'),
    "a tensor twice": framed(
        b'{"__metadata__": {"facts": "{}", "names": "[[\\"w\\"]]"}, '
        b'"0/w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, '
        b'"0/w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'
    ),
    "a name twice": blob(names=[["w", "w"]]),
    "a name too many": blob(names=[["w", "v"]]),
    "a tensor without a name": blob(names=[[]]),
    "names that are no lists": blob(names={"0": "w"}),
    "a tensor that is a number": blob({"0/w": 3}),
    "a tensor with more to say": blob(tensor(more=1)),
    "an unknown dtype": blob(tensor(dtype="F8_E4M3")),
    "a dtype that is a list": blob(tensor(dtype=["F32"])),
    "a negative size": blob(tensor(shape=[-2])),
    "a size that is true": blob(tensor(shape=[True, 2])),
    "a size that is no whole number": blob(tensor(shape=[2.0])),
    "a shape that is a number": blob(tensor(shape=2)),
    "no shape": blob(tensor(shape=None)),
    "an empty tensor with endless strides": blob(
        tensor(shape=[0, 2**62, 2**62], data_offsets=[0, 0]), data=b""
    ),
    "many dimensions": blob(tensor(shape=[1] * 40 + [2])),
    "more values than bytes": blob(tensor(shape=[3])),
    "fewer values than bytes": blob(tensor(shape=[1])),
    "bytes behind the end": blob(tensor(data_offsets=[8, 16])),
    "bytes before the start": blob(tensor(data_offsets=[-8, 0])),
    "an end before the start": blob(tensor(data_offsets=[8, 0])),
    "bytes that belong to nobody": blob(data=bytes(16)),
    "two tensors in one place": blob({"0/w": TENSOR, "0/v": TENSOR}, names=[["w", "v"]]),
    "a truth value of 2": blob(
        tensor(dtype="BOOL", shape=[8]), data=b"\x00\x01\x02" + bytes(5)
    ),
    "facts that are no JSON": framed(b'{"__metadata__": {"facts": "{", "names": "[]"}}'),
    "facts that are a word": blob(facts="reply"),
    "no facts": blob(facts={}),
    "another record": blob(facts=reply(record="gift")),
    "facts with more to say": blob(facts=reply(more=1)),
    "a client that is a number": blob(facts=reply(client=7)),
    "no channels": blob(facts=reply(channels=[])),
    "an unknown sum": blob(facts=channel(reduce="median")),
    "a bound below zero": blob(facts=channel(l2=-1)),
    "a bound that is no number": blob(facts=channel(l2=float("nan"))),
    "an endless bound": blob(facts=channel(l2=float("inf"))),
    "a channel twice": blob(
        {"0/w": TENSOR, "1/w": {**TENSOR, "data_offsets": [8, 16]}},
        facts=reply(channels=REPLY["channels"] * 2), names=[["w"], ["w"]], data=bytes(16),
    ),
    "a failure with tensors": blob(
        facts={"record": "failure", "client": "a", "kind": "b", "message": "c"}
    ),
    "a failure of many words": blob(
        {}, names=[], data=b"",
        facts={"record": "failure", "client": "a", "kind": "b", "message": "c" * 5_000},
    ),
    "a state": pack_state({"adapter": {}}),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_not_of_the_agreed_form_is_refused(case: str) -> None:
    with pytest.raises(PayloadError, match=r"^a record that came is refused: "):
        unpack(HOSTILE[case])


def test_each_kind_is_read_as_what_it_is() -> None:
    for data, what in ((blob(), "a reply"), (pack(Failure("a", "b", "c")), "a failure")):
        with pytest.raises(PayloadError, match=f"it is {what}, no payload"):
            unpack_payload(data)
        with pytest.raises(PayloadError, match=f"it is {what}, no state"):
            unpack_state(data)
    with pytest.raises(PayloadError, match="it is a payload"):
        unpack(pack_payload({}))


def test_more_bytes_than_agreed_are_not_looked_at() -> None:
    data = blob()
    assert isinstance(unpack(data, limit=len(data)), Reply)
    with pytest.raises(PayloadError, match=f"it has {len(data)} bytes; at most {len(data) - 1}"):
        unpack(data, limit=len(data) - 1)


@given(st.data())
def test_whatever_is_done_to_the_bytes_is_refused_or_is_a_record(data: st.DataObject) -> None:
    sent = pack(Reply("ada", data.draw(PAYLOADS)))
    place = data.draw(st.integers(0, len(sent)))
    cut = data.draw(st.integers(0, 9))
    changed = sent[:place] + data.draw(st.binary(max_size=9)) + sent[place + cut :]
    try:
        found = unpack(changed)
    except PayloadError:
        return
    assert isinstance(found, Reply)
    assert bits(found.payload) == bits(unpack(pack(found)).payload)  # type: ignore[union-attr]
