"""A client that answers what it should not is refused with a sentence; the round goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atoll.core import Channel, Exchange, Failure, Payload, Reply
from atoll.core.wire import pack
from atoll.experiment.opening import no_offer, offer_in
from atoll.frames import Frame, Kind
from atoll.runtimes import incoming, letters, lines, mailbox, pieces, post
from atoll.runtimes.gathering import Closing
from atoll.runtimes.letters import OPENING, Answer, Call, Letter, packed, unpacked
from atoll.runtimes.messages import broken
from atoll.runtimes.opener import Opener
from tests.support.wire import Peer, Take, Wire, rounds, toy

Say = Callable[[Call, bytes], bytes]
QUICK = Closing(quorum=2, grace=0.1)


def one_round(folder: Path, patch: pytest.MonkeyPatch, mal: Take, *, closing: Closing = QUICK,
              slow: float = 0.0) -> tuple[Exchange, list[str]]:  # fmt: skip
    """A round of two honest clients and `mal`, and what the server tells of it."""
    told: list[str] = []
    honest = {name: Peer(folder / name, name, {"fit": toy()}) for name in ("ada", "zoe")}
    delays = {"zoe": slow}
    wire = Wire({**honest, "mal": mal}, lambda client, data: (delays.get(client, 0.0),))
    with rounds(wire, folder / "s", patch, number=1, closing=closing, told=told) as reports:
        (report,) = reports
    assert report.position.server["adapter"]["w"].isfinite().all()
    (exchange,) = report.exchanges
    assert set(exchange.clients) == {"ada", "zoe"}
    return exchange, told


def said_by_mal(exchange: Exchange) -> Failure:
    (failure,) = exchange.failures
    assert failure.client == "mal"
    return failure


def changed(**channels: Channel | None) -> Callable[[Payload], Payload]:
    def change(payload: Payload) -> Payload:
        found = {**payload, **channels}
        return {name: one for name, one in found.items() if one is not None}

    return change


def update(value: torch.Tensor, name: str = "w") -> Channel:
    return Channel({name: value}, "mean", weight="weight")


def count(value: float) -> Channel:
    return Channel({"count": torch.tensor(value)}, "sum")


WRONG = {
    "a name": (changed(update=update(torch.ones(8), "v")), "asked for: v, w"),
    "a name more": (
        changed(update=Channel({"w": torch.ones(8), "v": torch.ones(8)}, "mean", weight="weight")),
        "do not match what was asked for: v",
    ),
    "a channel more": (changed(more=count(1.0)), "more"),
    "a shape": (changed(update=update(torch.ones(9))), "[9]"),
    "a dtype": (changed(update=update(torch.ones(8, dtype=torch.float64))), "float64"),
    "not a number": (changed(update=update(torch.full((8,), float("nan")))), "finite"),
    "an infinity": (changed(update=update(torch.full((8,), float("inf")))), "finite"),
    "much": (changed(update=update(torch.ones(2**20))), "bytes"),
    "no rows": (changed(examples=count(float("nan"))), "finite"),
    "fewer than no rows": (
        changed(examples=count(-60.0)),
        "must hold one number that is not negative",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    change, says = WRONG[what]
    mal = Peer(tmp_path / "mal", "mal", {"fit": toy(change)})
    exchange, _ = one_round(tmp_path, monkeypatch, mal)
    failure = said_by_mal(exchange)
    assert failure.kind == "payload"
    assert says in failure.message


def test_a_wrong_reply_does_not_count_when_others_are_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mal = Peer(tmp_path / "mal", "mal", {"fit": toy(WRONG["not a number"][0])})
    exchange, _ = one_round(tmp_path, monkeypatch, mal, slow=1.0)
    assert said_by_mal(exchange).kind == "payload"


def speaker(folder: Path, say: Say) -> Take:
    """A client that opens as it should, and then says what it likes."""
    honest = Peer(folder / "mal", "mal", {"fit": toy()})

    def take(data: bytes) -> bytes | None:
        call, _ = unpacked(Call, data)
        return honest(data) if call.letter.startswith(OPENING) else say(call, data)

    return take


def word(call: Call, state: str = "done", *, client: str = "mal", body: bytes = b"",
         **facts: object) -> bytes:  # fmt: skip
    told = {"client": client, "session": "s", "letter": call.letter, "state": state, **facts}
    return packed(Answer.model_validate(told), [body])


def whole(call: Call, body: bytes, **facts: object) -> bytes:
    """An answer of one piece."""
    digest = hashlib.sha256(body).hexdigest()
    return word(call, body=body, **{"size": len(body), "digest": digest, "piece": 0, **facts})


def frames(*found: Frame) -> bytes:
    return Letter.of("x", found).rest


RECORD = pack(Failure("mal", "device", "asleep"))
DONE = Frame(Kind.DONE, 1)
STRANGE: dict[str, tuple[Say, str]] = {
    "garbage": (lambda call, data: b"\x00garbage", "cut off"),
    "nothing": (lambda call, data: b"", "cut off"),
    "its own call": (lambda call, data: data, "a message that came is refused"),
    "deep JSON": (lambda call, data: _head(b"[" * 10_000), "a message that came is refused"),
    "a long head": (lambda call, data: _head(b'{"missing":[' + b"0," * 2**22 + b"0]}"), "head"),
    "a gigabyte": (lambda call, data: word(call, size=2**30, digest="0" * 64),
                   "announces an answer of 1,073,741,824 bytes"),
    "less than nothing": (lambda call, data: word(call).replace(b'"done"', b'"done","size":-1'),
                          "a message that came is refused"),
    "another's name": (lambda call, data: word(call, client="ada"), "mal answers as ada"),
    "another name": (lambda call, data: word(call, client="eve"), "mal answers as eve"),
    "a wrong digest": (lambda call, data: whole(call, frames(DONE), digest="0" * 64),
                       "is not what it was announced to be"),
    "a longer piece": (lambda call, data: whole(call, frames(DONE), size=3),
                       "piece 0 of 1 of an answer of mal came with 16 bytes"),
    "a piece beyond": (lambda call, data: whole(call, frames(DONE), piece=7),
                       "piece 7 of 1 of an answer of mal came with 16 bytes"),
    "no frames": (lambda call, data: whole(call, b"half a fr"), "cut off"),
    "a frame that is cut": (lambda call, data: whole(call, frames(DONE)[:-1] + b"\xff"),
                            "cut off"),
    "frames of the server": (lambda call, data: whole(call, frames(Frame(Kind.ASK))), "cut off"),
    "no record": (lambda call, data: whole(call, frames(DONE)), "holds no record"),
    "an empty letter": (lambda call, data: whole(call, b""), "holds no record"),
    "an answer to another letter": (
        lambda call, data: whole(call.model_copy(update={"letter": "r9-e9"}), b""),
        "mal answers r1-e0 with its answer to r9-e9",
    ),
    "two records": (lambda call, data: whole(call, frames(*2 * [Frame(Kind.RECORD, 1, _reply())])),
                    "channels do not match"),
    "a record of another": (lambda call, data: whole(call, frames(Frame(Kind.RECORD, 1, _reply(
        "ada")))), "a record came that was not asked for"),
    "no record of ours": (lambda call, data: whole(call, frames(Frame(Kind.RECORD, 1, b"x" * 99))),
                          "a record that came is refused"),
    "an error": (lambda call, data: whole(call, frames(Frame(Kind.BROKEN, 0, broken(
        ValueError("\x1b[2Jgone\nfor good"))))), "?[2Jgone"),
}  # fmt: skip


def _head(head: bytes) -> bytes:
    return letters.SIZE.pack(len(head)) + head


def _reply(client: str = "mal") -> bytes:
    return pack(Reply(client, {"update": update(torch.ones(8))}))


@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    say, says = STRANGE[what]
    exchange, _ = one_round(tmp_path, monkeypatch, speaker(tmp_path, say))
    assert says in said_by_mal(exchange).message


@pytest.mark.parametrize(
    "say",
    [
        lambda call, data: word(call, "working"),
        lambda call, data: word(call, "unopened"),
        lambda call, data: word(call, "incomplete"),
        lambda call, data: word(call, "incomplete", missing=(0, 1, 2**31 - 1)),
        lambda call, data: word(call, size=9, digest="0" * 64),
    ],
)
def test_a_client_that_is_never_done_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    exchange, _ = one_round(tmp_path, monkeypatch, speaker(tmp_path, say))
    assert said_by_mal(exchange).kind == "absent"


def small_pieces(patch: pytest.MonkeyPatch, size: int = 100) -> None:
    """Letters of many pieces; a name that is imported stands in each module."""
    for module in (letters, lines, mailbox, incoming, pieces, post):
        for name, value in (("PIECE", size), ("INLINE", 0)):
            if name in vars(module):
                patch.setattr(module, name, value)


def test_pieces_come_in_any_order_and_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    told: list[str] = []
    sites = {name: Peer(tmp_path / name, name, {"fit": toy()}) for name in ("ada", "zoe")}
    wire = Wire(sites, lambda client, data: (0.0, 0.05) if len(data) % 2 else (0.02, 0.0))
    closing = Closing(2, 0.1)
    with rounds(wire, tmp_path / "s", monkeypatch, number=2, closing=closing, told=told) as found:
        reports = list(found)
    assert [len(report.exchanges[0].clients) for report in reports] == [2, 2]
    assert len(wire.sent) > 40


def test_another_piece_than_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer brings a piece that was there before: nothing is counted twice."""
    small_pieces(monkeypatch)
    honest = Peer(tmp_path / "mal", "mal", {"fit": toy()})

    def take(data: bytes) -> bytes | None:
        call, body = unpacked(Call, data)
        if call.fetch is not None and not call.letter.startswith(OPENING):
            data = packed(call.model_copy(update={"fetch": 0}), [bytes(body)])
        return honest(data)

    exchange, _ = one_round(tmp_path, monkeypatch, take)
    assert said_by_mal(exchange).kind == "absent"


def test_an_answer_that_changes_while_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch)
    digests = iter(range(10**9))

    def say(call: Call, data: bytes) -> bytes:
        return word(call, size=250, digest=f"{next(digests):064x}", piece=call.fetch or 0,
                    body=b"x" * 100)  # fmt: skip

    exchange, _ = one_round(tmp_path, monkeypatch, speaker(tmp_path, say))
    assert said_by_mal(exchange).kind in ("absent", "payload")
    assert not list((tmp_path / "s").rglob("mal/answer"))


def test_who_takes_no_part_is_told_by_name_once_where_cohorts_are_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, told = Peer(tmp_path / "ada", "ada", {"fit": toy()}), list[str]()

    def take(data: bytes) -> bytes | None:
        call, _ = unpacked(Call, data)
        opening = call.letter.startswith(OPENING)
        return whole(call, frames(DONE)) if opening else word(call, "unopened")

    wire = Wire({"ada": honest, "mal": take})
    closing = Closing(0, 5.0, secret=True)
    with rounds(wire, tmp_path / "s", monkeypatch, number=3, closing=closing, told=told) as found:
        kinds = [one.kind for report in found for one in report.exchanges[0].failures]
    assert kinds == ["refused"] * 3
    assert [text for text in told if "mal" in text] == ["mal takes no part: odd"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"garbage", "cut off"),
        (b"", "it answers something else than was asked"),
        (frames(DONE), "it answers something else than was asked"),
        (frames(*2 * [Frame(Kind.READY, 0, b"{}")]), "it answers something else than was asked"),
        (frames(Frame(Kind.READY, 0, b"[" * 10**5)), "a message that came is refused"),
        (frames(Frame(Kind.READY, 0, b"{}")), "a message that came is refused: versions"),
        (frames(Frame(Kind.BROKEN, 0, broken(ValueError("\x1bc asleep")))), "?c asleep"),
    ],
)
def test_a_strange_offer_ends_no_server(tmp_path: Path, body: bytes, says: str) -> None:
    answer = tmp_path / "answer"
    answer.write_bytes(body)
    found = no_offer("mal", answer)
    assert found is not None
    assert says in found[1]
    opener = Opener(Letter.of("x", []), lambda client, frames: offer_in(frames) and None)
    assert opener.judged("mal", answer)
