"""Steps over the wire: the bits of one process, and the whole for who has not what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import torch

from atoll.core import (
    Algorithm,
    Channel,
    Context,
    Federation,
    Payload,
    Position,
    Program,
    Task,
    Tree,
)
from atoll.errors import PayloadError
from atoll.round import federate
from atoll.runtimes.gathering import Closing
from atoll.runtimes.held import Held
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.servers.steps import following, in_steps
from atoll.stages import quantise
from tests.support.wire import RUN, Peer, Wire, rounds, toy

NAMES = ("ada", "bob", "zoe")
ROUNDS = 5


def stepping() -> Algorithm:
    plain, stages = toy(), [quantise(dtype="int8")]
    return replace(plain, server=following(in_steps(plain.server, stages), stages))


def in_one_process() -> list[tuple[torch.Tensor, int]]:
    """Values and bytes down after each round."""
    algorithms = {"fit": stepping()}
    program = Program(algorithms, lambda number: ("fit",) if number else ())
    runtime = InProcess(NAMES, algorithms, memory_store())
    plan = Federation(seed=1, run=RUN, num_rounds=ROUNDS, clients_per_round=3, min_clients=3)
    begin = Position({"adapter": {"w": torch.zeros(8)}}, round=0)
    return [
        (report.position.server["adapter"]["w"], report.exchanges[0].bytes_down)
        for report in federate(program, runtime, plan, begin)
    ]


def over_the_wire(
    path: Path, monkeypatch: pytest.MonkeyPatch, between: Callable[[int, Wire], None]
) -> tuple[list[tuple[torch.Tensor, int]], list[str]]:
    told: list[str] = []
    wire = Wire({name: Peer(path / name, name, {"fit": stepping()}) for name in NAMES})
    found = []
    with rounds(wire, path / "s", monkeypatch, number=ROUNDS, closing=Closing(3, 0.0), told=told,
                algorithm=stepping()) as reports:  # fmt: skip
        for report in reports:
            assert report.exchanges[0].failures == ()
            found.append((report.position.server["adapter"]["w"], report.exchanges[0].bytes_down))
            between(report.round, wire)
    return found, told


def same(a: list[tuple[torch.Tensor, int]], b: list[tuple[torch.Tensor, int]]) -> bool:
    return all(torch.equal(v, w) and m == n for (v, m), (w, n) in zip(a, b, strict=True))


def test_steps_over_the_wire_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = in_one_process()
    assert [nbytes for _, nbytes in alone] == [3 * 32] + 4 * [3 * (64 + 8 + 4)]
    assert len({tuple(value.tolist()) for value, _ in alone}) == ROUNDS
    found, told = over_the_wire(tmp_path, monkeypatch, lambda number, wire: None)
    assert same(found, alone)
    assert told == []


def test_who_begins_anew_is_sent_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zoe's process is another one in every round; she is never told to have failed."""

    def anew(number: int, wire: Wire) -> None:
        place = tmp_path / f"zoe-{number}"
        wire.sites["zoe"] = Peer(place, "zoe", {"fit": stepping()})

    found, told = over_the_wire(tmp_path, monkeypatch, anew)
    alone = in_one_process()
    # A step that she could not take, and then all of it, are both counted.
    more = [0] + (ROUNDS - 1) * [8 * 4]
    counted = [(v, nbytes + one) for (v, nbytes), one in zip(alone, more, strict=True)]
    assert same(found, counted)
    assert told == []


def test_a_server_that_goes_back_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients have the adapter of a later round than the checkpoint that it goes on from."""
    sites = {name: Peer(tmp_path / name, name, {"fit": stepping()}) for name in NAMES}
    places: list[Position] = []
    for at, number in ((None, 4), (1, ROUNDS)):
        start = None if at is None else places[at]
        with rounds(
            Wire(sites), tmp_path / f"s-{number}", monkeypatch, number=number, told=[],
            closing=Closing(3, 0.0), algorithm=stepping(), start=start,
        ) as reports:  # fmt: skip
            found = [report.position for report in reports]
        places = found if at is None else places[: at + 1] + found
    alone = in_one_process()
    for position, (value, _) in zip(places, alone, strict=True):
        assert torch.equal(position.server["adapter"]["w"], value)


@pytest.mark.parametrize("anew", [False, True], ids=["", "begun anew"])
def test_a_late_answer_counts_also_where_all_had_to_be_sent(
    anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zoe answers round 3 when it is over; before that, her process may have begun anew."""
    over, slow = Event(), [False]

    def waits(payload: Payload) -> Payload:
        if slow[0]:
            slow[0] = False
            over.wait(20)
        return payload

    def zoe(place: str) -> Peer:
        plain = toy(waits)
        return Peer(tmp_path / place, "zoe", {"fit": replace(stepping(), client=plain.client)})

    peers = {name: Peer(tmp_path / name, name, {"fit": stepping()}) for name in NAMES[:2]}
    wire, folded = Wire({**peers, "zoe": zoe("zoe")}), []
    with rounds(
        wire, tmp_path / "s", monkeypatch, number=ROUNDS, told=[], staleness=0.5,
        closing=Closing(quorum=2, grace=3.0, late=True), algorithm=stepping(),
    ) as reports:  # fmt: skip
        for report in reports:
            folded.append(report.exchanges[0].folded.get("zoe"))
            if report.round == 2:
                slow[0] = True
                if anew:
                    wire.sites["zoe"] = zoe("zoe-2")
            if report.round == 3:
                over.set()
    assert folded == [0, 1, None, 2, 4]


@pytest.mark.parametrize("tree", [{"w": torch.zeros(9)}, {"v": torch.zeros(8)},
                                  {"w": torch.zeros(8), "v": torch.zeros(1)}])  # fmt: skip
def test_an_adapter_that_is_not_of_the_model_is_not_kept(tree: Tree) -> None:
    held = Held({"fit": stepping()}, {"w": torch.zeros(8)})
    context = Context(1, RUN, 1, 0, ("ada",), 1)
    with pytest.raises(PayloadError, match="not of this site's model"):
        held.opened(Task("fit", context, lambda client: {"adapter": Channel(tree)}, {}), "ada")
    good = {"adapter": Channel({"w": torch.ones(8)})}
    task = held.opened(Task("fit", context, lambda client: good, {}), "ada")
    assert task.broadcast("ada") is good
