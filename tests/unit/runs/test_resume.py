"""Runs that go on: after a stop, with more rounds, from another run's model, on damaged files."""

from __future__ import annotations

import gc
import json
import shutil
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from atoll.config import dump, load
from atoll.core import Position
from atoll.errors import RunError
from atoll.experiment.setup import Setup, prepare
from atoll.experiment.standing import Machine, standing
from atoll.experiment.tracker_libraries import LIBRARIES, Tracker
from atoll.plan.live import peak_bytes
from atoll.runs import run as run_module
from atoll.runs.checkpoints import Checkpoint, latest, read, save_round, write
from atoll.runs.lines import RoundLine
from atoll.runs.resume import forked
from atoll.runs.run import federated, run_experiment
from atoll.runs.selection import best_round, stalled
from atoll.runs.where import Observer
from tests.support.federation import SIZES, labelled_rows
from tests.support.models import Zoo
from tests.support.scenes import scene

SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "federation": {"num_rounds": 3, "clients_per_round": 2, "algorithm": "scaffold"},
    "evaluate": {"baselines": []},
}


def _setup(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> Setup:
    both = {name: {**SECTIONS.get(name, {}), **sections.get(name, {})} for name in
            {**SECTIONS, **sections}}  # fmt: skip
    return scene(folder, zoo, **both)


def _after(setup: Setup, run: Path, rounds: int) -> None:
    """Leave a run after so many rounds beside round 0."""
    heard: list[int] = []
    for line in federated(setup, run, Observer()):
        heard.append(line.round)
        if line.round == rounds:
            break
    assert heard[-1] == rounds


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, zoo: Zoo) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_experiment(_setup(folder, zoo), folder / "run", Observer())
    return folder / "run"


def _same_weights(run: Path, other: Path) -> bool:
    a, b = _weights(run), _weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_generator_that_is_left_goes_on(
    tmp_path: Path, zoo: Zoo, whole: Path, rounds: int
) -> None:
    _after(_setup(tmp_path, zoo), tmp_path / "run", rounds)
    notes: list[str] = []
    again = _setup(tmp_path, zoo)
    heard = list(federated(again, tmp_path / "run", Observer(note=notes.append)))
    assert [line.round for line in heard] == list(range(rounds + 1, 4))
    assert notes == [f"going on after round {rounds} in {tmp_path / 'run'}"]
    assert _same_weights(tmp_path / "run", whole)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(record["resumed"]) == 1


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, zoo: Zoo, whole: Path
) -> None:
    run = tmp_path / "run"
    _after(_setup(tmp_path, zoo), run, 2)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["round-1", "round-2"]
    tensors = run / "checkpoints" / "round-2" / "server.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-7] + b"harmful")
    notes: list[str] = []
    run_experiment(_setup(tmp_path, zoo), run, Observer(note=notes.append))
    assert notes == [
        "checkpoint round-2 is damaged (it is not what was written); going on from round-1",
        f"going on after round 1 in {run}",
    ]
    assert _same_weights(run, whole), "the clients' states went back as well"


def test_a_damaged_state_of_a_client_falls_back_too(tmp_path: Path, zoo: Zoo, whole: Path) -> None:
    run = tmp_path / "run"
    _after(_setup(tmp_path, zoo), run, 2)
    state = next((run / "client_state").glob("*/*-2.safetensors"))
    content = bytearray(state.read_bytes())
    content[-3] ^= 1
    state.write_bytes(content)
    notes: list[str] = []
    run_experiment(_setup(tmp_path, zoo), run, Observer(note=notes.append))
    assert notes[0] == (
        f"checkpoint round-2 cannot be used ({state} is damaged: it is not what was written); "
        "going on from round-1"
    )
    assert _same_weights(run, whole)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', "null"])
def test_no_whole_checkpoint_is_an_error_that_keeps_everything(
    tmp_path: Path, zoo: Zoo, content: str
) -> None:
    run = tmp_path / "run"
    _after(_setup(tmp_path, zoo), run, 0)
    (run / "checkpoints" / "round-0" / "position.json").write_text(content)
    before = sorted(run.rglob("*"))
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read: .*round-0 is damaged"):
        run_experiment(_setup(tmp_path, zoo), run, Observer())
    assert sorted(run.rglob("*")) == before


def test_a_checkpoint_of_another_version(tmp_path: Path) -> None:
    save_round(tmp_path, Checkpoint(Position({"adapter": {"w": torch.ones(2)}}, 4)))
    path = tmp_path / "round-4" / "position.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(RunError, match=r"another version of Atoll \(format 7, this one reads 1\)"):
        latest(tmp_path, print)


def test_a_checkpoint_comes_back_as_it_went(tmp_path: Path) -> None:
    server = {
        "adapter": {"b": torch.randn(3, 2, dtype=torch.float64), "a/c": torch.zeros(0)},
        "head": {},
        "moments": {"count": torch.tensor(3), "half": torch.randn(4).bfloat16()},
    }
    shared = torch.randn(4, 4)
    server["views"] = {"left": shared[:, :2], "right": shared[:, 2:]}
    position = Position(server, 7, 12, {"ada": 3, "ü/b": 11})
    write(tmp_path / "round-7", Checkpoint(position, 1.5))
    found = read(tmp_path / "round-7")
    assert found.seconds == 1.5
    assert (found.position.round, found.position.exchanges) == (7, 12)
    assert found.position.folded == position.folded
    assert list(found.position.server) == list(server)
    for part, tree in server.items():
        assert list(found.position.server[part]) == list(tree)
        for name, value in tree.items():
            assert found.position.server[part][name].dtype == value.dtype
            assert torch.equal(found.position.server[part][name], value)


def test_a_checkpoint_is_written_from_where_the_state_lies(tmp_path: Path) -> None:
    """Beside a state that is as large as the model, no copy of it is made."""
    server = {"adapter": {str(i): torch.full((2**21,), float(i)) for i in range(8)}}
    size = 8 * 4 * 2**21
    tracemalloc.start()
    tensors = peak_bytes(lambda: write(tmp_path / "round-1", Checkpoint(Position(server))))
    assert tensors + tracemalloc.get_traced_memory()[1] < size // 4
    tracemalloc.stop()
    found = load_file(tmp_path / "round-1" / "server.safetensors")
    assert found.keys() == {f"adapter/{i}" for i in range(8)}
    assert all(torch.equal(found[f"adapter/{i}"], server["adapter"][str(i)]) for i in range(8))


def test_a_run_keeps_no_state_of_before(tmp_path: Path, zoo: Zoo) -> None:
    setup, there = _setup(tmp_path, zoo), list[set[int]]()

    def looked(line: RoundLine) -> None:
        gc.collect()
        held = [one for one in gc.get_objects() if type(one) is Position and one.server]
        there.append({one.round for one in held if one.round >= 0})

    _after(setup, tmp_path / "run", 1)
    gc.collect()
    already = {one.round for one in gc.get_objects() if type(one) is Position}
    run_experiment(setup, tmp_path / "run", Observer(round=looked))
    assert [rounds - already for rounds in there] == [{n} - already for n in (2, 3)]
    # Otherwise nothing would be seen.
    assert not already & {1, 2, 3}


def test_more_rounds_extend_a_finished_run(tmp_path: Path, zoo: Zoo, whole: Path) -> None:
    shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)
    held = tmp_path / "run" / "experiment.yaml"
    held.write_text(held.read_text().replace(str(whole.parent), str(tmp_path)))
    longer = _setup(tmp_path, zoo, federation={"num_rounds": 5})
    found = standing(tmp_path / "run", dump(longer.experiment))
    assert (found.state, found.changes) == ("unfinished", "federation.num_rounds: 3 -> 5")
    heard = list(federated(longer, tmp_path / "run", Observer()))
    assert [line.round for line in heard] == [4, 5]
    straight = tmp_path / "straight"
    run_experiment(longer, straight, Observer())
    # At a constant learning rate, and with a head that trains, five rounds are five rounds.
    assert _same_weights(tmp_path / "run", straight)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["num_rounds"] == 5


def test_fewer_rounds_or_another_key_are_another_experiment(whole: Path) -> None:
    held = load(whole / "experiment.yaml").experiment
    for section, key, value in [("federation", "num_rounds", 2), ("train", "momentum", 0.5)]:
        changed = vars(held)[section].model_copy(update={key: value})
        found = standing(whole, dump(held.model_copy(update={section: changed})))
        assert found.state == "other"
        assert found.changes.startswith(f"{section}.{key}: ")
    assert standing(whole, dump(held)).state == "finished"


def test_a_fork_starts_from_the_checkpoint_and_survives_its_origin(
    tmp_path: Path, zoo: Zoo, whole: Path
) -> None:
    last = read(whole / "checkpoints" / "round-3").position.server
    setup = _setup(tmp_path, zoo, federation={"num_rounds": 1}, train={"learning_rate": 1e-4})
    notes: list[str] = []
    setup = forked(setup, whole, notes.append)
    for part in ("adapter", "head"):
        for name, value in setup.start.server[part].items():
            assert torch.equal(value, last[part][name])
    run = tmp_path / "run"
    _after(setup, run, 0)
    record = json.loads((run / "run.json").read_text())
    assert record["forked_from"] == {"run": str(whole), "round": 3}
    # Its start is its own: going on does not look at the origin again.
    again = _setup(tmp_path, zoo, federation={"num_rounds": 1}, train={"learning_rate": 1e-4})
    run_experiment(again, run, Observer())
    straight = tmp_path / "straight"
    run_experiment(setup, straight, Observer())
    assert _same_weights(run, straight)
    assert not _same_weights(run, whole)


def test_a_fork_of_another_shape(tmp_path: Path, zoo: Zoo, whole: Path) -> None:
    setup = _setup(tmp_path, zoo, adapter={"r": 3})
    with pytest.raises(RunError, match=r"is \(3, 32\) in this experiment, and the checkpoint of"):
        forked(setup, whole, print)
    with pytest.raises(RunError, match="has no checkpoint to start from"):
        forked(setup, tmp_path, print)


def test_data_that_changed_since(tmp_path: Path, zoo: Zoo) -> None:
    run = tmp_path / "run"
    _after(_setup(tmp_path, zoo), run, 1)
    with (tmp_path / "data" / "ada" / "train.jsonl").open("a") as stream:
        stream.write(json.dumps({"text": "more", "label": "sea"}) + "\n")
    with pytest.raises(RunError, match=r"data has changed since the run in .* was started"):
        run_experiment(_setup(tmp_path, zoo), run, Observer())


def test_what_a_kill_left_in_the_last_round_goes_when_the_run_goes_on(
    tmp_path: Path, zoo: Zoo
) -> None:
    """The newest checkpoint stands, and those that it takes the place of were not yet removed."""
    run = tmp_path / "run"
    _after(_setup(tmp_path, zoo), run, 3)
    kept = run / "checkpoints"
    for name in ("round-1", "best-1", "best-2", "best-4"):
        shutil.copytree(kept / "round-2", kept / name)
    run_experiment(_setup(tmp_path, zoo), run, Observer())
    names = {path.name for path in kept.iterdir()}
    assert names == {"round-2", "round-3", "best-2", "best-4"}


def test_rounds_without_their_lines(tmp_path: Path, zoo: Zoo) -> None:
    run = tmp_path / "run"
    _after(_setup(tmp_path, zoo), run, 2)
    again = _setup(tmp_path, zoo)
    for content in ("", "5\n5\n5\n", '{"round": 0}\n{"round": 1}\n{"round": 2}\n'):
        (run / "rounds.jsonl").write_text(content)
        with pytest.raises(RunError, match=r"rounds.jsonl does not hold the 3 rounds"):
            run_experiment(again, run, Observer())


def test_rounds_without_their_checkpoints(tmp_path: Path, zoo: Zoo) -> None:
    """The first round's line may stand alone, as a kill leaves it; later ones may not."""
    run = tmp_path / "run"
    _after(_setup(tmp_path, zoo), run, 1)
    shutil.rmtree(run / "checkpoints")
    again = _setup(tmp_path, zoo)
    with pytest.raises(RunError, match=r"checkpoints holds no checkpoint, though .* has rounds"):
        run_experiment(again, run, Observer())
    assert len((run / "rounds.jsonl").read_text().splitlines()) == 2
    (run / "rounds.jsonl").write_text((run / "rounds.jsonl").read_text().splitlines()[0] + "\n")
    assert next(federated(again, run, Observer())).round == 0


def test_a_line_that_was_cut_off_is_written_again(tmp_path: Path, zoo: Zoo, whole: Path) -> None:
    run = tmp_path / "run"
    _after(_setup(tmp_path, zoo), run, 1)
    with (run / "rounds.jsonl").open("a") as stream:
        stream.write('{"round": 2, "lo')
    run_experiment(_setup(tmp_path, zoo), run, Observer())
    lines = (run / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1, 2, 3]


def test_a_run_goes_on_with_the_group_size_and_threads_that_it_found(
    tmp_path: Path, zoo: Zoo
) -> None:
    setup = _setup(tmp_path, zoo)
    _after(setup, tmp_path / "run", 0)
    found = standing(tmp_path / "run", dump(setup.experiment))
    assert found.machine == Machine(2, torch.get_num_threads(), "cpu")
    loaded, threads = load(tmp_path / "experiment.yaml"), torch.get_num_threads()
    try:
        again = prepare(loaded, note=print, machine=Machine(3, threads + 1, "cpu"))
        assert again.bench.group_size == 3
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def watched(tmp_path: Path, zoo: Zoo) -> Callable[..., Setup]:
    return lambda **evaluate: _setup(tmp_path, zoo, evaluate={"baselines": [], **evaluate})


def _lines(*own: float | None) -> list[RoundLine]:
    return [
        RoundLine(round, None, None, value, 0, 0, 0, 0, {}, 0.1) for round, value in enumerate(own)
    ]


def test_the_best_round_is_the_first_of_the_best(watched: Callable[..., Setup]) -> None:
    setup = watched()
    assert best_round(setup, _lines(None, 0.5, None, 0.7, 0.7, 0.2)) == 3
    assert best_round(setup, _lines(None, None)) is None
    assert best_round(setup, []) is None


def test_patience_counts_evaluations(watched: Callable[..., Setup]) -> None:
    setup = watched(patience=2)
    assert not stalled(setup, _lines(0.5, None, 0.4))
    assert stalled(setup, _lines(0.5, None, 0.4, None, 0.5))
    assert not stalled(setup, _lines(0.5, 0.4, 0.6, 0.5))
    assert not stalled(watched(), _lines(0.5, 0.4, 0.3, 0.2))


def test_the_best_model_is_the_one_that_is_exported(tmp_path: Path, zoo: Zoo) -> None:
    """A learning rate that destroys: some round before the last is the best on unseen rows."""
    for client, rows in labelled_rows({name: size + 6 for name, size in SIZES.items()}).items():
        (tmp_path / "data" / client).mkdir(parents=True)
        for split, part in (("train", rows[6:]), ("test", rows[:6])):
            text = "".join(json.dumps(row) + "\n" for row in part)
            (tmp_path / "data" / client / f"{split}.jsonl").write_text(text)
    setup = _setup(
        tmp_path, zoo, evaluate={"load_best": True},
        train={"learning_rate": 0.3}, federation={"num_rounds": 5},
    )  # fmt: skip
    notes: list[str] = []
    summary = run_experiment(setup, tmp_path / "run", Observer(note=notes.append))
    lines = [json.loads(x) for x in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: (line["own"], -line["round"]))
    assert best["own"] > lines[-1]["own"], f"no case: {[line['own'] for line in lines]}"
    assert summary["best_round"] == best["round"]
    assert summary["final"] == pytest.approx(best["own"])
    assert notes == [f"the model of round {best['round']} is taken: the best on held-out rows"]
    kept = [path.name for path in (tmp_path / "run" / "checkpoints").glob("best-*")]
    assert kept == [f"best-{best['round']}"]


def test_a_tracker_hears_of_every_round_that_counts(
    tmp_path: Path, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop between what is told of a round and its checkpoint tells it again, and loses none."""
    told: list[int | str] = []
    tracker = Tracker(
        {}, lambda round, numbers: told.append(round), lambda *summary: told.append("summary"),
        lambda ended: None,
    )  # fmt: skip
    monkeypatch.setitem(cast(dict[str, Any], LIBRARIES), "tensorboard", lambda begin: tracker)
    setup = _setup(tmp_path, zoo)
    experiment = setup.experiment.model_copy(update={"report_to": "tensorboard"})
    setup = replace(setup, loaded=replace(setup.loaded, experiment=experiment))

    def stopped(folder: Path, checkpoint: Checkpoint) -> None:
        if checkpoint.position.round == 1:
            raise KeyboardInterrupt
        save_round(folder, checkpoint)

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "save_round", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(setup, tmp_path / "run", Observer())
    run_experiment(setup, tmp_path / "run", Observer())
    assert told == [0, 1, 1, 2, 3, "summary"]
