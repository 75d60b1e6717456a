"""A client's versions: replies that are lost or repeated, rounds that die half way, full disks."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atoll.core import Context, State
from atoll.errors import RunError
from atoll.runtimes.store import ClientStore, damaged_state, disk_store, memory_store

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

Make = Callable[[Path], ClientStore]
STORES: dict[str, Make] = {"memory": lambda folder: memory_store(), "disk": disk_store}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ClientStore:
    return STORES[request.param](tmp_path)


def at(round: int, exchange: int, client: str = "ada") -> Context:
    return Context(0, "run", round, exchange, (client,), 1, client)


def state(value: float) -> State:
    return {
        "scaffold": {"layer.weight": torch.full((2, 3), value), "layer.bias": torch.zeros(2)},
        "top_k": {"layer.weight": torch.full((2, 3), -value, dtype=torch.float64)},
    }


def value_of(found: State) -> float | None:
    return float(found["scaffold"]["layer.weight"][0, 0]) if found else None


def test_a_state_comes_back_as_it_went(store: ClientStore) -> None:
    assert store.load(at(1, 0), None) == {}
    store.save(at(1, 0), state(1))
    found = store.load(at(2, 1), 0)
    assert found.keys() == state(1).keys()
    for part, tree in state(1).items():
        assert found[part].keys() == tree.keys()
        for name, value in tree.items():
            assert torch.equal(found[part][name], value)
            assert found[part][name].dtype == value.dtype


def test_a_lost_reply_leaves_the_folded_version(store: ClientStore) -> None:
    store.save(at(1, 0), state(1))
    assert value_of(store.load(at(2, 1), 0)) == 1
    store.save(at(2, 1), state(2))
    # Round 2 was never folded: the client starts again from exchange 0, and forgets 1 for good.
    assert value_of(store.load(at(3, 2), 0)) == 1
    assert value_of(store.load(at(3, 2), 1)) == 1


def test_a_reply_that_was_never_folded_counts_for_nothing(store: ClientStore) -> None:
    store.save(at(1, 0), state(1))
    assert store.load(at(2, 1), None) == {}
    store.save(at(2, 1), state(2))
    assert value_of(store.load(at(3, 2), 1)) == 2


def test_a_repeated_question_starts_from_the_same_state(store: ClientStore) -> None:
    store.save(at(1, 0), state(1))
    for answer in (2, 3):
        assert value_of(store.load(at(2, 1), 0)) == 1
        store.save(at(2, 1), state(answer))
    assert value_of(store.load(at(3, 2), 1)) == 3


def test_exchanges_of_others_lie_in_between(store: ClientStore) -> None:
    store.save(at(1, 0), state(1))
    # 1 to 4 kept nothing here, but were folded.
    assert value_of(store.load(at(5, 5), 4)) == 1


def test_a_run_that_dies_inside_a_round_comes_back_to_the_one_before(store: ClientStore) -> None:
    store.save(at(1, 0), state(1))
    store.load(at(2, 1), 0)
    store.save(at(2, 1), state(2))
    # A second question of round 2 sees what the first left …
    assert value_of(store.load(at(2, 2), 1)) == 2
    # … and the run that was killed now starts round 2 again.
    assert value_of(store.load(at(2, 1), 0)) == 1


def test_the_next_round_commits(store: ClientStore, tmp_path: Path) -> None:
    for round in range(1, 6):
        store.load(at(round, round), round - 1)
        store.save(at(round, round), state(round))
    assert value_of(store.load(at(6, 6), 5)) == 5
    assert len(list(tmp_path.rglob("*.safetensors"))) <= 2
    # The checkpoint of round 5 is damaged: the run comes back to the end of round 4.
    assert value_of(store.load(at(5, 5), 4)) == 4
    assert store.load(at(5, 5), 3) == {}


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_damaged_state_is_told(content: bytes | None, tmp_path: Path) -> None:
    store = disk_store(tmp_path)
    store.save(at(1, 0), state(1))
    assert damaged_state(tmp_path, {"ada": 0, "bob": 0}) is None
    path = tmp_path / "ada" / "0-1.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"!" if content is None else content)
    assert str(damaged_state(tmp_path, {"ada": 0})).startswith(f"{path} is damaged: ")
    with pytest.raises(RunError, match="is damaged: "):
        store.load(at(2, 1), 0)
    # What was never folded is of no account.
    assert damaged_state(tmp_path, {"bob": 0}) is None


def test_clients_do_not_share(store: ClientStore) -> None:
    store.save(at(1, 0, "ada"), state(1))
    store.save(at(1, 0, "bob"), state(2))
    assert value_of(store.load(at(2, 1, "ada"), 0)) == 1
    assert value_of(store.load(at(2, 1, "bob"), 0)) == 2
    assert store.load(at(2, 1, "cyd"), 0) == {}


def test_no_state_costs_nothing(tmp_path: Path) -> None:
    disk_store(tmp_path).save(at(1, 0), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/etc/x", "../up", "a b", "é", "CON", "%2E"])
def test_a_clients_name_stays_inside_the_folder(name: str, tmp_path: Path) -> None:
    store = disk_store(tmp_path / "in")
    store.save(at(1, 0, name), state(3))
    assert value_of(store.load(at(2, 1, name), 0)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    (place,) = (tmp_path / "in").iterdir()
    assert [path.suffix for path in place.iterdir()] == [".safetensors"]


def test_names_stay_apart(tmp_path: Path) -> None:
    store = disk_store(tmp_path)
    names = ["a/b", "a%2Fb", "a", "a.b", "a%2Eb"]
    for number, name in enumerate(names):
        store.save(at(1, 0, name), state(number))
    assert [value_of(store.load(at(2, 1, name), 0)) for name in names] == list(range(5))


def test_a_full_disk_leaves_the_version_before_and_no_part(tmp_path: Path) -> None:
    store = disk_store(tmp_path)
    store.save(at(1, 0), state(1))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(RunError, match="cannot be written: it is larger than a file may be"):
            store.save(at(2, 1), {"scaffold": {"layer.weight": torch.zeros(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "ada").iterdir()] == ["0-1.safetensors"]
    assert value_of(disk_store(tmp_path).load(at(2, 1), 0)) == 1


def test_a_killed_process_leaves_no_version_and_its_part_is_cleared(tmp_path: Path) -> None:
    store = disk_store(tmp_path)
    store.save(at(1, 0), state(1))

    # A write beyond the limit kills the process at once, as a power switch does.
    code = f"""
import resource, signal, torch
from pathlib import Path
from atoll.core import Context
from atoll.runtimes.store import disk_store
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
disk_store(Path({str(tmp_path)!r})).save(
    {at(2, 1)!r}, {{"scaffold": {{"layer.weight": torch.zeros(100_000)}}}}
)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert found.returncode == -signal.SIGXFSZ
    assert any(path.suffix == ".partial" for path in (tmp_path / "ada").iterdir())
    again = disk_store(tmp_path)
    assert value_of(again.load(at(2, 1), 0)) == 1
    again.save(at(2, 1), state(2))
    assert {path.name for path in (tmp_path / "ada").iterdir()} == {
        "0-1.safetensors", "1-2.safetensors",
    }  # fmt: skip
