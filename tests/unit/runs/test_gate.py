"""A run's adapter is what it says: read back, moved, and more than noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atoll.artifacts.export import export_adapter
from atoll.errors import ModelError
from atoll.experiment.setup import Setup
from atoll.runs.checkpoints import latest
from atoll.runs.gate import drowned, examined
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene

SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "train": {"learning_rate": 0.01},
    "federation": {"num_rounds": 3},
    "evaluate": {"baselines": []},
}


def _setup(folder: Path, zoo: Zoo, kind: str = "bert", **sections: Mapping[str, Any]) -> Setup:
    both = {name: {**SECTIONS.get(name, {}), **sections.get(name, {})} for name in
            {**SECTIONS, **sections}}  # fmt: skip
    return scene(folder, zoo, kind, **both)


def _run(setup: Setup, run: Path) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    return run_experiment(setup, run, Observer(note=notes.append)), notes


def _last(run: Path) -> Any:
    found = latest(run / "checkpoints", lambda text: None)
    assert found is not None
    return found.position.server


def test_a_run_reads_back_what_it_trained(tmp_path: Path, zoo: Zoo) -> None:
    summary, notes = _run(_setup(tmp_path, zoo), tmp_path / "run")
    found = summary["export"]
    assert found["loss"] == found["read_back"] > 0
    assert found["moved"] > 0
    assert found["still"] == 0
    assert not [note for note in notes if "move" in note or "noise" in note]


def test_its_loss_is_the_mean_over_rows_as_torch_has_it(tmp_path: Path, zoo: Zoo) -> None:
    setup = _setup(tmp_path, zoo)
    _run(setup, tmp_path / "run")
    state = _last(tmp_path / "run")
    found = examined(setup, state, tmp_path / "run" / "adapter", 3)
    rows = [x for c in setup.data.clients[:8] for x in setup.bench.examples(c, "train")[:8]]
    from atoll.local.bench import model_values
    from atoll.local.infer import forward_batches

    total = 0.0
    for chosen, batch, outputs in forward_batches(setup.bench, model_values(state), rows):
        loss = torch.nn.functional.cross_entropy(outputs, batch.target.flatten(), reduction="sum")
        total += float(loss)
        assert chosen
    assert found.loss == pytest.approx(total / len(rows), rel=1e-5)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "head.safetensors"])
def test_another_adapter_on_the_disk_is_refused(file: str, tmp_path: Path, zoo: Zoo) -> None:
    setup, run = _setup(tmp_path, zoo), tmp_path / "run"
    _run(setup, run)
    path = run / "adapter" / file
    tensors = load_file(path)
    save_file({name: 2 * value + 0.3 for name, value in tensors.items()}, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"read back, is not the one that was trained: its loss"):
        examined(setup, _last(run), run / "adapter", 3)


def _exported(setup: Setup, state: Any, run: Path) -> None:
    summary = {"metric": "accuracy", "final": None, "num_rounds": 3, "exchanges": 0,
               "baselines": {"local": None, "pooled": None}}  # fmt: skip
    export_adapter(setup, state, run / "adapter", summary)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_without_a_finite_value_is_refused(value: float, tmp_path: Path, zoo: Zoo) -> None:
    setup, run = _setup(tmp_path, zoo), tmp_path / "run"
    _run(setup, run)
    state = _last(run)
    for part in ("adapter", "head"):
        state[part] = {name: torch.full_like(v, value) for name, v in state[part].items()}
    _exported(setup, state, run)
    with pytest.raises(ModelError, match=r"the trained model has values that are not finite in "):
        examined(setup, state, run / "adapter", 3)


def test_one_value_on_the_disk_that_is_no_number_is_refused(tmp_path: Path, zoo: Zoo) -> None:
    setup, run = _setup(tmp_path, zoo), tmp_path / "run"
    _run(setup, run)
    path = run / "adapter" / "head.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = math.nan
    save_file(tensors, path, {"format": "pt"})
    why = rf"read back, has values that are not finite in 1 tensor of \d+ \({name}\)"
    with pytest.raises(ModelError, match=why):
        examined(setup, _last(run), run / "adapter", 3)


def test_a_round_that_leaves_no_finite_model_ends_the_run(tmp_path: Path, zoo: Zoo) -> None:
    server = {"name": "adam", "learning_rate": 1e39}
    setup = _setup(
        tmp_path, zoo, privacy={"noise_multiplier": 1.0, "clip": 0.5}, federation={"server": server}
    )
    with pytest.raises(ModelError, match="round 1: the model has values that are not finite"):
        _run(setup, tmp_path / "run")
    # What was good stays, to go on from.
    assert torch.isfinite(_last(tmp_path / "run")["adapter"].popitem()[1]).all()
    assert not (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


def test_an_adapter_that_did_not_move_is_called_out(tmp_path: Path, zoo: Zoo) -> None:
    setup = _setup(tmp_path, zoo, train={"learning_rate": 1e-30})
    summary, notes = _run(setup, tmp_path / "run")
    assert summary["export"]["moved"] < 1e-20
    assert any("the model hardly moved: by " in note for note in notes)


def test_a_tensor_that_did_not_move_is_named(tmp_path: Path, zoo: Zoo) -> None:
    setup, run = _setup(tmp_path, zoo), tmp_path / "run"
    _run(setup, run)
    state = _last(run)
    name = next(iter(state["adapter"]))
    state["adapter"][name] = setup.start.server["adapter"][name]
    _exported(setup, state, run)
    (warning,) = examined(setup, state, run / "adapter", 3).warnings()
    assert warning.startswith("1 tensor of ")
    assert warning.endswith(f"did not move: {name}")


def test_a_model_of_noise_is_called_out_with_numbers(tmp_path: Path, zoo: Zoo) -> None:
    privacy = {"noise_multiplier": 50.0, "clip": 1e-4}
    setup = _setup(tmp_path, zoo, privacy=privacy)
    summary, notes = _run(setup, tmp_path / "run")
    found = summary["export"]
    state, start = _last(tmp_path / "run"), setup.start.server
    change = torch.cat([
        (state[part][name].double() - start[part][name]).flatten()
        for part in ("adapter", "head") for name in start[part]
    ])  # fmt: skip
    clients = len(setup.data.clients)
    noise = 50.0 * 1e-4 / clients * (change.numel() * 3) ** 0.5
    assert found["noise"] == pytest.approx(noise, rel=1e-9)
    assert float(change.norm()) == pytest.approx(noise, rel=0.2)
    assert found["signal_to_noise"] < 0.7
    assert "loss" not in found
    assert any("the model is hardly more than noise: the signal in it is" in note for note in notes)


@pytest.mark.parametrize("values", [100, 7700, 1_000_000])
def test_noise_alone_is_rarely_taken_for_a_signal(values: int) -> None:
    generator = torch.Generator().manual_seed(0)
    excess = [
        float(torch.randn(values, generator=generator).square().mean()) - 1 for _ in range(100)
    ]
    ratios = [max(one, 0.0) ** 0.5 for one in excess]
    assert sum(ratio < drowned(values) for ratio in ratios) >= 93


MOVING = {"name": "momentum", "learning_rate": 3.0, "momentum": 0.5}


# A bound that noise on its count moves up and down by factors of e³.
WILD = {"adaptive": True, "initial": 1e-4, "count_noise": 50.0}


@pytest.mark.parametrize(
    ("sampling", "clip"), [("poisson", 1e-4), ("turns", 1e-4), ("poisson", WILD)]
)
def test_a_server_that_moves_further_has_as_much_more_noise(
    sampling: str, clip: Any, tmp_path: Path, zoo: Zoo
) -> None:
    blt = {"mechanism": "blt", "sampling": "turns"} if sampling == "turns" else {}
    turns: dict[str, Any] = {"clients_per_round": 1} if blt else {}
    setup = _setup(
        tmp_path, zoo, privacy={"noise_multiplier": 50.0, "clip": clip, **blt},
        federation={"num_rounds": 5, "server": MOVING, **turns},
    )  # fmt: skip
    summary, _ = _run(setup, tmp_path / "run")
    state, start = _last(tmp_path / "run"), setup.start.server
    change = torch.cat([
        (state[part][name].double() - start[part][name]).flatten()
        for part in ("adapter", "head") for name in start[part]
    ])  # fmt: skip
    assert summary["export"]["noise"] == pytest.approx(float(change.norm()), rel=0.15)


def test_of_a_server_that_adapts_no_noise_is_told(tmp_path: Path, zoo: Zoo) -> None:
    setup = _setup(
        tmp_path, zoo, privacy={"noise_multiplier": 50.0, "clip": 1e-4},
        federation={"num_rounds": 2, "server": {"name": "adam"}},
    )  # fmt: skip
    found = _run(setup, tmp_path / "run")[0]["export"]
    assert found["noise"] is None
    assert found["signal_to_noise"] is None
    assert "loss" not in found


def test_where_noise_hides_rows_no_loss_on_them_is_told(tmp_path: Path, zoo: Zoo) -> None:
    hidden = {"unit": "example", "noise_multiplier": 1.0, "clip": 0.5}
    found = _run(_setup(tmp_path, zoo, privacy=hidden), tmp_path / "run")[0]["export"]
    assert found.keys() == {"moved", "still", "noise", "signal_to_noise_at_most"}
    assert found["noise"] is None


@pytest.mark.parametrize(("noise", "drowns"), [(0.1, False), (2000.0, True)])
def test_noise_in_which_the_gradients_of_rows_drown(
    noise: float, drowns: bool, tmp_path: Path, zoo: Zoo
) -> None:
    setup = _setup(tmp_path, zoo, privacy={"unit": "example", "noise_multiplier": noise})
    summary, notes = _run(setup, tmp_path / "run")
    counts = [len(setup.bench.examples(c, "train")) for c in setup.data.clients]
    train, rounds = setup.experiment.train, setup.experiment.federation.num_rounds
    size = train.per_device_train_batch_size
    values = sum(
        v.numel() for part in ("adapter", "head") for v in setup.start.server[part].values()
    )
    # Sums of a batch of cut gradients beside noise in each of d values, over steps and clients.
    often = train.num_train_epochs * rounds
    most = max(min(size, count) * math.sqrt(math.ceil(count / size) * often) for count in counts)
    expected = most * math.sqrt(len(counts)) / (noise * math.sqrt(values))
    assert summary["export"]["signal_to_noise_at_most"] == pytest.approx(expected, rel=1e-6)
    assert any("more than noise" in note for note in notes) == drowns


def test_a_signal_is_told_from_noise(tmp_path: Path, zoo: Zoo) -> None:
    setup = _setup(tmp_path, zoo, privacy={"noise_multiplier": 1e-4, "clip": 1.0})
    summary, notes = _run(setup, tmp_path / "run")
    assert summary["export"]["signal_to_noise"] > 10
    assert not any("more than noise" in note for note in notes)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_models_that_write_are_read_back_too(kind: str, tmp_path: Path, zoo: Zoo) -> None:
    sections = {"adapter": {"target_modules": None, "head": None}, "model": {"pooling": "auto"}}
    summary, _ = _run(_setup(tmp_path, zoo, kind, **sections), tmp_path / "run")
    assert summary["export"]["loss"] == pytest.approx(summary["export"]["read_back"], rel=1e-6)
