"""The runtime of processes: who works for whom, and what becomes of the clients of a dead worker.

Its workers here are plain scripts (`tests.support.peer`), which tell in a failure's message what
they were asked; `tests/e2e` has the real ones.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from atoll.core import Channel, Context, Failure, Payload, Task
from atoll.errors import DataError, PayloadError, RunError
from atoll.runtimes import asking, desks, silence
from atoll.runtimes.messages import Identity
from atoll.runtimes.processes import Processes
from atoll.runtimes.workers import Hire

PEER = Path(__file__).parents[2] / "support" / "peer.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
IDENTITY = Identity(protocol=1, atoll="1", torch="2", experiment="e", data="d", base="b")


@contextmanager
def opened(
    folder: Path, rows: Mapping[str, int] | Sequence[str], *, workers: int = 2
) -> Iterator[tuple[Processes, list[str]]]:
    """A runtime over peers, and the notes that it makes."""
    notes: list[str] = []
    hire = Hire((sys.executable, "-S", "-E", str(PEER), str(folder)), IDENTITY, folder)
    given = rows if isinstance(rows, Mapping) else dict.fromkeys(rows, 1)
    with Processes(hire, given, workers=workers, note=notes.append) as runtime:
        yield runtime, notes


def task(clients: Sequence[str], *, round: int = 1, name: str = "train", own: bool = False) -> Task:
    """A task for clients; with `own`, each gets tensors of its own."""
    shared = {"adapter": Channel({"w": torch.ones(2)})}

    def broadcast(client: str) -> Payload:
        return {"adapter": Channel({"w": torch.ones(2)})} if own else dict(shared)

    context = Context(0, "run", round, 3, tuple(clients), len(clients))
    return Task(name, context, broadcast, dict.fromkeys(clients, 2))


def told(answers: Sequence[Any]) -> dict[str, list[dict[str, Any]]]:
    """What the peers told of each client, in the order in which it came."""
    found: dict[str, list[dict[str, Any]]] = {}
    for answer in answers:
        assert isinstance(answer, Failure)
        assert answer.kind == "told", answer
        found.setdefault(answer.client, []).append(json.loads(answer.message))
    return found


def test_every_client_answers_each_task_once(tmp_path: Path) -> None:
    roster = [f"c{i}" for i in range(7)]
    with opened(tmp_path, roster, workers=3) as (runtime, notes):
        assert runtime.roster == tuple(roster)
        tasks = [task(roster, name="train"), task(roster, name="evaluation")]
        found = told(list(runtime.call(tasks, roster)))
    assert found.keys() == set(roster)
    assert all([x["algorithm"] for x in each] == ["train", "evaluation"] for each in found.values())
    assert all(x["folded"][client] == 2 for client, each in found.items() for x in each)
    assert notes == []
    assert len({x["pid"] for each in found.values() for x in each}) == 3


def test_a_shared_broadcast_travels_once_and_own_ones_as_often_as_needed(tmp_path: Path) -> None:
    roster = ["ada", "bob", "cyd"]
    with opened(tmp_path, roster, workers=1) as (runtime, _):
        shared = told(list(runtime.call([task(roster)], roster)))
        own = told(list(runtime.call([task(roster, own=True)], roster)))
    assert {len(x["held"]) for each in shared.values() for x in each} == {1}
    assert {tuple(x["requests"]) for each in shared.values() for x in each} == {(0, 0, 0)}
    # The one of the call before was forgotten when this ask was answered.
    assert [len(set(x["requests"])) for each in own.values() for x in each] == [3, 3, 3]
    with opened(tmp_path, roster, workers=1) as (runtime, _):
        list(runtime.call([task(roster)], roster))
        again = told(list(runtime.call([task(roster)], roster)))
    assert {len(x["held"]) for each in again.values() for x in each} == {2}


def test_large_cohorts_are_asked_in_batches_that_share_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "AT_ONCE", 2)
    roster = [f"c{i}" for i in range(5)]
    with opened(tmp_path, roster, workers=1) as (runtime, _):
        found = told(list(runtime.call([task(roster)], roster)))
    assert [x["of"] for each in found.values() for x in each] == [
        ["c0", "c1"], ["c0", "c1"], ["c2", "c3"], ["c2", "c3"], ["c4"]
    ]  # fmt: skip
    assert {tuple(x["held"]) for each in found.values() for x in each} == {(0,)}


def test_payloads_of_clients_own_are_held_as_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "TOGETHER", 2 * 2 * 8 + 1)  # two clients with two tasks of 8 bytes
    roster = [f"c{i}" for i in range(5)]
    with opened(tmp_path, roster, workers=1) as (runtime, _):
        tasks = [task(roster, own=True), task(roster, name="evaluation", own=True), task(roster)]
        found = told(list(runtime.call(tasks, roster)))
    assert [len(each[0]["of"]) for each in found.values()] == [2, 2, 2, 2, 1]
    assert max(len(x["held"]) for each in found.values() for x in each) == 2 * 4 + 1


def test_a_client_stays_with_its_worker_through_a_round(tmp_path: Path) -> None:
    rows = {"a": 1, "b": 9, "c": 4, "d": 4, "e": 2}
    with opened(tmp_path, rows) as (runtime, _):
        first = told(list(runtime.call([task(["a", "c", "d"])], ["a", "c", "d"])))
        second = told(list(runtime.call([task(list(rows))], list(rows))))
        third = told(list(runtime.call([task(list(rows), round=2)], list(rows))))
    pid = {client: each[0]["pid"] for client, each in second.items()}
    assert {client: each[0]["pid"] for client, each in first.items()}.items() <= pid.items()
    # Shared out anew: 9 + 1 rows against 4 + 4 + 2.
    groups: dict[int, set[str]] = {}
    for client, each in third.items():
        groups.setdefault(each[0]["pid"], set()).add(client)
    assert sorted(map(sorted, groups.values())) == [["a", "b"], ["c", "d", "e"]]


def test_a_worker_that_is_killed_is_replaced_and_nobody_is_lost(tmp_path: Path) -> None:
    roster = ["ada", "killed-once", "zoe"]
    with opened(tmp_path, roster, workers=1) as (runtime, notes):
        tasks = [task(roster, name="train"), task(roster, name="evaluation")]
        found = told(list(runtime.call(tasks, roster)))
        assert {client: len(each) for client, each in found.items()} == dict.fromkeys(roster, 2)
        assert notes == [
            "worker 1 was killed by SIGKILL; another is asked again for killed-once, zoe"
        ]
        # ada's answers had come; the others are asked alone.
        assert [each[0]["of"] for each in found.values()] == [roster, ["killed-once"], ["zoe"]]
        assert told(list(runtime.call([task(roster, round=2)], roster))).keys() == set(roster)


def test_a_client_that_kills_its_worker_each_time_fails_alone(tmp_path: Path) -> None:
    roster = ["ada", "dies", "zoe", "bob"]
    with opened(tmp_path, roster) as (runtime, notes):
        tasks = [task(roster, name="train"), task(roster, name="evaluation")]
        answers = list(runtime.call(tasks, roster))
    failed = [answer for answer in answers if answer.client == "dies"]
    assert failed == [
        Failure(
            "dies", "worker", "its worker died each time: it ended with status 1 "
            "(MemoryError: 7 TiB)",
        )
    ] * 2  # fmt: skip
    found = told([answer for answer in answers if answer.client != "dies"])
    assert {client: len(each) for client, each in found.items()} == {"ada": 2, "zoe": 2, "bob": 2}
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("client", "why"),
    [
        ("garbled", "sent what cannot be read"),
        ("stranger", "a record came that was not asked for"),
        ("forks", "worker 1 ended with status 4 (see "),
    ],
)
def test_a_worker_out_of_its_mind_is_replaced(tmp_path: Path, client: str, why: str) -> None:
    with opened(tmp_path, [client, "zoe"], workers=1) as (runtime, notes):
        found = told(list(runtime.call([task([client, "zoe"])], [client, "zoe"])))
    assert found.keys() == {client, "zoe"}
    assert len(notes) == 1
    assert why in notes[0]
    if client == "forks":
        _wait_for_the_end_of(int((tmp_path / "child").read_text()))


def test_an_error_that_ends_the_run_ends_it_here(tmp_path: Path) -> None:
    with opened(tmp_path, ["ada", "broken"]) as (runtime, _):
        with pytest.raises(DataError, match=r"^worker [12]: no rows$"):
            list(runtime.call([task(["ada", "broken"])], ["ada", "broken"]))
        assert told(list(runtime.call([task(["ada"])], ["ada"]))).keys() == {"ada"}


def test_a_worker_of_another_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with (
        pytest.raises(RunError, match=r"^worker 1: it reads other rows: data.path changed since"),
        opened(tmp_path, ["ada"]),
    ):
        pass
    assert children() == []


def test_a_worker_that_cannot_begin_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "stillborn").touch()
    with (
        pytest.raises(RunError, match=r"^worker 1 ended with status 1 \(cannot begin\) before it"),
        opened(tmp_path, ["ada", "bob"]),
    ):
        pass
    assert children() == []


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    hire = Hire((str(tmp_path / "python"),), IDENTITY, tmp_path)
    with (
        pytest.raises(RunError, match=r"^worker 1 cannot be started: .*No such file"),
        Processes(hire, {"ada": 1}, workers=1, note=print),
    ):
        pass


def test_what_cannot_travel_ends_the_call_and_the_next_is_answered(tmp_path: Path) -> None:
    def broadcast(client: str) -> Payload:
        return {"adapter": Channel({"w": torch.ones(2, dtype=torch.complex64)})}

    odd = Task("train", task(["ada"]).context, broadcast, {})
    with opened(tmp_path, ["ada"]) as (runtime, notes):
        with pytest.raises(PayloadError, match="'w' is a tensor that cannot travel"):
            list(runtime.call([odd], ["ada"]))
        assert told(list(runtime.call([task(["ada"])], ["ada"]))).keys() == {"ada"}
    assert notes == []


@pytest.mark.parametrize(
    ("client", "size", "doing"),
    [
        ("stops", 2, "it works for stops, zoe"),  # in its work
        ("stops-later", 2**20, "it works for stops-later, zoe"),  # before it took what is sent
    ],
)
def test_a_worker_that_is_stopped_is_told_and_goes_on(
    client: str, size: int, doing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "FIRST", 0.05)
    monkeypatch.setattr(silence, "LOOK", 0.01)
    monkeypatch.setattr(desks, "LOOK", 0.01)
    roster, told_of = [client, "zoe"], []
    hire = Hire((sys.executable, "-S", "-E", str(PEER), str(tmp_path)), IDENTITY, tmp_path)

    def note(text: str) -> None:
        found = re.search(r"`kill -CONT (\d+)` lets it go on", text)
        if found:
            told_of.append(text)
            os.kill(int(found[1]), signal.SIGCONT)

    def broadcast(client: str) -> Payload:
        return large

    large = {"adapter": Channel({"w": torch.ones(size)})}
    heavy = Task("train", task(roster, round=2).context, broadcast, {})
    with Processes(hire, dict.fromkeys(roster, 1), workers=1, note=note) as runtime:
        asked = [list(runtime.call([each], roster)) for each in (task(roster), heavy)]
    assert [told(answers).keys() for answers in asked] == [set(roster)] * 2
    assert told_of
    assert f"has said nothing for 0 s: {doing}; it is stopped" in told_of[0]


def test_a_call_that_is_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    roster = ["ada", "sleeps"]
    with opened(tmp_path, roster, workers=1) as (runtime, notes):
        answers = runtime.call([task(roster)], roster)
        assert next(answers).client == "ada"
        answers.close()  # type: ignore[attr-defined]
        assert children() == []
        found = told(list(runtime.call([task(["ada"])], ["ada"])))
        assert found["ada"][0]["asks"] == 1
    assert notes == []
    assert list(runtime.call([], roster)) == list(runtime.call([task(roster)], [])) == []


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with opened(tmp_path, ["ada", "bob", "dies"]) as (runtime, _):
            list(runtime.call([task(runtime.roster)], runtime.roster))
            assert len(children()) == 1  # The other's place is filled when it is needed.
        assert children() == []
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_more_workers_than_clients_are_not_started(tmp_path: Path) -> None:
    with opened(tmp_path, ["ada"], workers=5):
        assert len(children()) == 1
    with opened(tmp_path, []) as (runtime, _):
        assert runtime.roster == ()
        assert children() == []


INTERRUPTED = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.unit.runtimes.test_processes import children, opened, task
with opened(Path({folder!r}), ["ada", "sleeps"], workers=1) as (runtime, _):
    for answer in runtime.call([task(runtime.roster)], runtime.roster):
        print(*children(), flush=True)
"""


def test_ctrl_c_at_the_terminal_ends_parent_and_workers(tmp_path: Path) -> None:
    code = INTERRUPTED.format(root=str(PEER.parents[2]), folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        process_group=0,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        (worker,) = map(int, parent.stdout.readline().split())
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal sends it
        _, said = parent.communicate(timeout=60)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "peer.py" not in said
    assert not Path(f"/proc/{worker}").exists()


def _wait_for_the_end_of(pid: int) -> None:
    """Until it is gone, or dead and not yet fetched by the system's first process."""
    deadline = time.monotonic() + 30
    while (stat := Path(f"/proc/{pid}/stat")).exists():
        if stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children() -> list[int]:
    """The processes that this one started and that are not yet gone."""
    found = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in found.read_text().split()]
