"""The arms that a federated run is compared with: as many passes, the same head, the same start."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from atoll.core import Federation
from atoll.experiment.baselines import expected_passes, local_models, pooled_model
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.round import federate
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from tests.support.models import Zoo
from tests.support.scenes import scene

# ada 7, bob 2, cy 11, dee 5, eve 1: 26 rows; in batches of 4 a pass is 2, 1, 3, 2, 1 steps.


@pytest.mark.parametrize(
    ("federation", "train", "expected"),
    [
        ({"num_rounds": 6}, {}, 6.0),
        ({"num_rounds": 6, "clients_per_round": 2}, {}, 6 * 2 / 5),
        ({"num_rounds": 6, "fraction_train": 0.4}, {"num_train_epochs": 3}, 6 * 2 / 5 * 3),
        ({"num_rounds": 0}, {}, 0.0),
        # One step: half a pass of ada, a pass of bob, a third, a half, a pass.
        ({"num_rounds": 1}, {"max_steps": 1}, (3.5 + 2 + 11 / 3 + 2.5 + 1) / 26),
        ({"num_rounds": 1}, {"max_steps": 6}, 6 * (3.5 + 2 + 11 / 3 + 2.5 + 1) / 26),
        (
            {"num_rounds": 4, "clients_per_round": 1},
            {"max_steps": 2, "gradient_accumulation_steps": 2},
            4 / 5 * 2 * (7 + 2 + 11 / 2 + 5 + 1) / 26,
        ),
    ],
)
def test_expected_passes(
    federation: Mapping[str, Any], train: Mapping[str, Any], expected: float,
    tmp_path: Path, zoo: Zoo,
) -> None:  # fmt: skip
    setup = scene(tmp_path, zoo, federation=federation, train=train)
    assert expected_passes(setup, setup.experiment.federation.num_rounds) == pytest.approx(expected)


def test_a_solved_head_alone_needs_no_passes(tmp_path: Path, zoo: Zoo) -> None:
    sections = {"model": {"pooling": "mean"}, "adapter": {"method": "none", "head": "ridge"}}
    assert expected_passes(scene(tmp_path, zoo, **sections), 3) == 0.0


POOL = "everybody"


def _arms(setup: Setup) -> dict[str, dict[str, torch.Tensor]]:
    rounds = setup.experiment.federation.num_rounds
    pooled = pooled_model(setup, expected_passes(setup, rounds))
    assert pooled is not None
    return {
        name: model_values(state)
        for name, state in local_models(setup, expected_passes(setup, rounds))
    } | {POOL: model_values(pooled)}


@pytest.mark.parametrize("head", ["ridge", "train"])
def test_every_client_gets_its_own_model(head: str, tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(
        tmp_path, zoo, model={"pooling": "mean"}, adapter={"head": head, "r": 2},
        federation={"num_rounds": 2},
    )  # fmt: skip
    found = _arms(setup)
    assert set(found) == {*setup.data.clients, POOL}
    start = model_values(setup.start.server)
    names = list(found)
    for client, values in found.items():
        assert values.keys() == start.keys()
        assert all(bool(torch.isfinite(value).all()) for value in values.values())
        assert any(not torch.equal(values[name], start[name]) for name in values), client
    for a, b in itertools.pairwise(names):
        assert any(not torch.equal(found[a][name], found[b][name]) for name in start)
    again = _arms(setup)
    for client, values in found.items():
        torch.testing.assert_close(again[client], values, rtol=0, atol=0)


def test_a_solved_head_is_the_pooled_one(tmp_path: Path, zoo: Zoo) -> None:
    """Sums over clients are the pool's sums: both arms end in one head, whatever the split."""
    setup = scene(
        tmp_path, zoo, model={"pooling": "mean"}, adapter={"head": "ridge", "method": "none"},
        federation={"num_rounds": 0},
    )  # fmt: skip
    runtime = InProcess(setup.data.clients, setup.program.algorithms, memory_store())
    plan = Federation(0, "federated", 0, len(setup.data.clients))
    (report,) = federate(setup.program, runtime, plan, setup.start)
    found, federated = _arms(setup), model_values(report.position.server)
    torch.testing.assert_close(found[POOL], federated, rtol=1e-4, atol=1e-4)
    for client in setup.data.clients:
        with pytest.raises(AssertionError):
            torch.testing.assert_close(found[client], federated, rtol=1e-4, atol=1e-4)


def test_the_learning_rate_runs_its_whole_course(tmp_path: Path, zoo: Zoo) -> None:
    """Linear decay over all passes: with SGD the last step of the baseline is a small one."""
    moved: dict[str, float] = {}
    for kind in ("constant", "linear"):
        setup = scene(
            tmp_path / kind, zoo, model={"pooling": "mean"},
            adapter={"head": "train", "method": "none"},
            federation={"num_rounds": 50},
            train={
                "optimizer": "sgd", "lr_scheduler_type": kind, "learning_rate": 1e-4,
                "max_grad_norm": None, "per_device_train_batch_size": 16,
            },
        )  # fmt: skip
        # At a tiny rate gradients hardly change, so that the way is the sum of the rates.
        state = dict(local_models(setup, expected_passes(setup, 50)))["dee"]
        start, end = model_values(setup.start.server), model_values(state)
        moved[kind] = sum(float((end[n] - start[n]).square().sum()) for n in start) ** 0.5
    assert moved["linear"] / moved["constant"] == pytest.approx(0.51, rel=1e-2)


def test_a_run_that_stopped_early_is_compared_with_as_many_passes(tmp_path: Path, zoo: Zoo) -> None:
    """Its baselines are those of a run that was asked for the rounds that it had."""

    def run(folder: Path, rounds: int, patience: int | None) -> dict[str, Any]:
        setup = scene(
            folder, zoo, model={"pooling": "mean"}, adapter={"head": "train", "r": 2},
            federation={"num_rounds": rounds}, evaluate={"patience": patience},
        )  # fmt: skip
        return run_experiment(setup, folder / "run", Observer())

    stopped = run(tmp_path / "stopped", 40, 2)
    assert 0 < stopped["num_rounds"] < 40
    asked = run(tmp_path / "asked", stopped["num_rounds"], None)
    for key in ("final", "baselines", "own", "per_client"):
        assert stopped[key] == asked[key]
