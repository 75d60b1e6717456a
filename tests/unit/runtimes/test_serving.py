"""The worker's half, and the frames between both halves."""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.aggregators import mean
from atoll.core import (
    Algorithm,
    Channel,
    ClientWork,
    Context,
    Failure,
    Payload,
    Reply,
    Request,
    State,
)
from atoll.core.wire import pack, unpack
from atoll.errors import DataError, PayloadError, RunError
from atoll.frames import Frame, Kind, read_frame, write_frame
from atoll.runtimes.assignment import assign
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.messages import Ask, Identity, Question, broken, error_of, read
from atoll.runtimes.serving import serve
from atoll.runtimes.store import ClientStore, memory_store
from atoll.servers import average

ROSTER = ("ada", "bob", "cyd")


def doubling(error: Exception | None = None) -> Algorithm:
    """Sends twice what it got, and counts its turns in its own state; bob sends what cannot go."""

    def work(requests: Sequence[Request]) -> Iterator[Reply | Failure]:
        for request in requests:
            if error is not None:
                raise error
            turns = request.state.get("turns", {"n": torch.zeros(())})["n"] + 1
            value = request.payload["adapter"].tree["w"] * 2
            odd = value.to(torch.complex64) if request.context.client == "bob" else value
            sent = {"update": Channel({"w": odd, "turns": turns})}
            yield Reply(request.context.client, sent, {"turns": {"n": turns}})

    client = ClientWork("doubling", lambda broadcast: broadcast, work, ("update",))
    return Algorithm("train", client, (), mean(), average())


def request(value: float, exchange: int = 0) -> Frame:
    context = Context(0, "run", exchange, exchange, ROSTER, 3)
    payload: Payload = {"adapter": Channel({"w": torch.tensor(value)})}
    return Frame(Kind.RECORD, int(value), pack(Request(context, payload)))


def ask(
    number: int, requests: Mapping[str, int], *, folded: Mapping[str, int] | None = None,
    algorithm: str = "train", times: int = 1,
) -> Frame:  # fmt: skip
    question = Question(
        algorithm=algorithm, requests=tuple(requests.values()), folded=dict(folded or {})
    )
    asked = Ask(clients=tuple(requests), questions=(question,) * times)
    return Frame(Kind.ASK, number, asked.model_dump_json().encode())


def served(
    *frames: Frame, algorithm: Algorithm | None = None, store: ClientStore | None = None,
    limit: int = 10_000,
) -> list[Frame]:  # fmt: skip
    sent: list[Frame] = []
    runtime = InProcess(ROSTER, {"train": algorithm or doubling()}, store or memory_store())
    serve(runtime, frames, sent.append, limit=limit)
    return sent


def said(frame: Frame) -> tuple[str, str]:
    found = json.loads(frame.data)
    assert frame.kind is Kind.BROKEN
    return found["error"], found["message"]


def test_an_ask_is_answered_from_the_requests_that_it_names() -> None:
    sent = served(request(3), request(4), ask(9, {"ada": 3, "cyd": 4}, times=2))
    assert [frame.kind for frame in sent] == [Kind.RECORD] * 4 + [Kind.DONE]
    assert {frame.number for frame in sent} == {9}
    replies = [unpack(frame.data) for frame in sent[:-1]]
    assert [(r.client, float(r.payload["update"].tree["w"])) for r in replies] == [  # type: ignore[union-attr]
        ("ada", 6), ("cyd", 8), ("ada", 6), ("cyd", 8)
    ]  # fmt: skip


def test_state_stays_here_and_is_built_upon_when_it_was_folded() -> None:
    store = memory_store()
    frames = [
        request(3, 0), ask(1, {"ada": 3}),
        request(4, 1), ask(2, {"ada": 4}, folded={"ada": 0}),
        request(5, 2), ask(3, {"ada": 5}, folded={"ada": 0}),
    ]  # fmt: skip
    sent = [unpack(f.data) for f in served(*frames, store=store) if f.kind is Kind.RECORD]
    assert [float(reply.payload["update"].tree["turns"]) for reply in sent] == [1, 2, 2]  # type: ignore[union-attr]
    assert all(reply.state == {} for reply in sent)  # type: ignore[union-attr]


def test_requests_are_forgotten_when_an_ask_does_not_name_them() -> None:
    sent = served(
        request(3), request(4), ask(1, {"ada": 3}), ask(2, {"ada": 3}), ask(3, {"ada": 4})
    )
    assert [frame.kind for frame in sent if frame.kind is not Kind.RECORD] == [
        Kind.DONE, Kind.DONE, Kind.BROKEN
    ]  # fmt: skip
    error, message = said(sent[-1])
    assert error == "PayloadError"
    assert message == "an ask came for requests that did not come before it"


def test_a_reply_that_cannot_travel_is_a_failure_of_its_client() -> None:
    sent = served(request(3), ask(1, {"bob": 3, "ada": 3}))
    records = [unpack(frame.data) for frame in sent[:-1]]
    assert isinstance(records[1], Reply)
    assert isinstance(records[0], Failure)
    assert (records[0].client, records[0].kind) == ("bob", "payload")
    assert "complex64" in records[0].message


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([Frame(Kind.DONE, 1)], "a frame of kind DONE came"),
        ([Frame(Kind.RECORD, 1, b"none")], "a record that came is refused"),
        ([Frame(Kind.RECORD, 1, pack(Failure("ada", "a", "b")))], "a record came that is no reque"),
        ([Frame(Kind.ASK, 1, b"{}")], "a message that came is refused: clients: Field required"),
        ([Frame(Kind.ASK, 1, b"\xff")], "a message that came is refused: Invalid JSON"),
        ([request(3), ask(1, {"eve": 3})], "an ask for eve came"),
        ([request(3), ask(1, {"ada": 3}, algorithm="rob")], "an ask for the algorithm 'rob' came"),
        ([ask(1, {"ada": 3})], "an ask came for requests that did not come before it"),
        ([ask(1, {})], "an ask came whose requests are not of one moment"),
        ([request(3), request(4, 7), ask(1, {"ada": 3, "bob": 4})], "not of one moment"),
    ],
)
def test_a_malformed_ask_is_refused_and_the_next_one_is_answered(
    frames: list[Frame], why: str
) -> None:
    sent = served(*frames, request(5), ask(2, {"ada": 5}))
    assert said(sent[0])[0] == "PayloadError"
    assert why in said(sent[0])[1]
    assert [frame.kind for frame in sent[1:]] == [Kind.RECORD, Kind.DONE]


def test_requests_are_held_up_to_a_limit() -> None:
    context = Context(0, "run", 0, 0, ROSTER, 3)
    large = pack(Request(context, {"adapter": Channel({"w": torch.ones(1_000)})}))
    assert 4_000 < len(large) < 6_000
    frames = [Frame(Kind.RECORD, number, large) for number in range(2)]
    assert served(*frames) == []
    (refused,) = served(*frames, limit=6_000)
    assert said(refused)[1] == "more than 6,000 bytes of requests came before an ask"
    (refused,) = served(frames[0], limit=4_000)
    assert "at most 4,000 are read" in said(refused)[1]


def test_what_ends_a_run_goes_back_by_its_name_and_what_a_fresh_process_may_cure_does_not() -> None:
    def full(context: Context, state: State) -> None:
        raise OSError(28, "No space left on device")

    store = ClientStore(lambda context, folded: {}, full)
    name, text = said(served(request(3), ask(1, {"ada": 3}), store=store)[0])
    assert (name, text) == ("OSError", "[Errno 28] No space left on device")
    bug = served(request(3), ask(1, {"ada": 3}), algorithm=doubling(AssertionError("a bug")))
    assert said(bug[0])[0] == "AssertionError"
    assert "in work" in said(bug[0])[1]  # the traceback, which ends at this process
    with pytest.raises(MemoryError):
        served(request(3), ask(1, {"ada": 3}), algorithm=doubling(MemoryError()))


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(DataError("x"), DataError), (OSError("x"), RunError), (AssertionError("x"), AssertionError)],
)
def test_an_error_keeps_its_class_where_it_is_ours(
    raised: Exception, expected: type[Exception]
) -> None:
    found = error_of(broken(raised), worker="worker 3")
    assert type(found) is expected
    assert str(found) == "worker 3: x"
    assert str(error_of(broken(OSError("\udc80")), worker="w")) == "w: ?"
    odd = error_of(b'{"error": "out_of_memory", "message": "x"}', worker="w")
    assert (type(odd), str(odd)) == (RunError, "w: x")


def test_an_identity_tells_what_differs() -> None:
    own = Identity(protocol=1, atoll="1", torch="2", experiment="e", data="d", base="b")
    assert own.differs(read(Identity, own.model_dump_json().encode())) is None
    for key, word in {
        "atoll": "runs atoll x, and this run atoll 1",
        "torch": "runs torch x, and this run torch 2",
        "experiment": "another experiment file",
        "data": "other rows",
        "base": "other weights",
    }.items():
        why = own.differs(own.model_copy(update={key: "x"}))
        assert why is not None
        assert word in why


def _piped(data: bytes, limit: int = 100) -> list[Frame | None]:
    """What a reader makes of bytes that end."""
    incoming, outgoing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(outgoing, data), os.close(outgoing)))
    writer.start()
    try:
        frames = [read_frame(incoming, limit=limit)]
        while frames[-1] is not None:
            frames.append(read_frame(incoming, limit=limit))
        return frames
    finally:
        os.close(incoming)
        writer.join()


@given(
    st.lists(
        st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=100)),
        max_size=4,
    )
)
def test_frames_come_back_in_their_order(frames: list[Frame]) -> None:
    incoming, outgoing = os.pipe()
    for frame in frames:
        write_frame(outgoing, frame)
    os.close(outgoing)
    assert [read_frame(incoming, limit=100) for _ in frames] == frames
    assert read_frame(incoming) is None
    os.close(incoming)


def test_a_large_frame_passes_a_small_pipe() -> None:
    incoming, outgoing = os.pipe()
    frame = Frame(Kind.RECORD, 1, bytes(range(256)) * 20_000)
    writer = threading.Thread(target=write_frame, args=(outgoing, frame))
    writer.start()
    assert read_frame(incoming) == frame
    writer.join()
    os.close(incoming)
    os.close(outgoing)


def test_frames_that_are_cut_or_too_long_or_unknown_are_not_read() -> None:
    whole = struct.pack("<c3xIQ", b"a", 7, 3) + b"abc"
    assert _piped(whole) == [Frame(Kind.ASK, 7, b"abc"), None]
    for end in range(len(whole)):
        assert _piped(whole[:end]) == [None]
    with pytest.raises(PayloadError, match="a frame of 101 bytes was announced; at most 100"):
        _piped(struct.pack("<c3xIQ", b"a", 7, 101))
    with pytest.raises(PayloadError, match="a record of 101 bytes cannot travel; at most 100"):
        write_frame(-1, Frame(Kind.RECORD, 0, bytes(101)), limit=100)
    with pytest.raises(PayloadError, match="a frame of the unknown kind b'x' came"):
        _piped(b"x" + whole[1:])


@given(
    st.dictionaries(st.text(max_size=2), st.integers(0, 9), min_size=1, max_size=7),
    st.integers(1, 3),
    st.data(),
)
def test_clients_are_shared_out_fairly(
    rows: dict[str, int], workers: int, data: st.DataObject
) -> None:
    places = assign(list(rows), rows, workers=workers, kept={})
    assert places.keys() == rows.keys()
    assert places == assign(list(reversed(rows)), rows, workers=workers, kept={})
    loads = [sum(rows[c] for c in rows if places[c] == w) for w in range(workers)]
    # Graham's bound, against the best of all ways to share them out.
    assert max(loads) <= (4 / 3 - 1 / (3 * workers)) * _best(list(rows.values()), workers) + 1e-9
    kept = {c: data.draw(st.integers(0, workers - 1)) for c in list(rows)[::2]}
    assert assign(list(rows), rows, workers=workers, kept=kept).items() >= kept.items()


def _best(sizes: list[int], workers: int) -> int:
    """The smallest largest load, by trying all."""
    loads = {(0,) * workers}
    for size in sizes:
        loads = {
            tuple(load + size * (i == place) for i, load in enumerate(held))
            for held in loads
            for place in range(workers)
        }
    return min(map(max, loads))
