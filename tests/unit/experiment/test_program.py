"""What the experiment file names is what runs: the parts of a round, and the order of exchanges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from atoll.config import load
from atoll.core import Federation, Tree
from atoll.errors import ConfigError
from atoll.experiment.setup import Setup, prepare
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.tree import l2_norm
from tests.support.models import Zoo
from tests.support.scenes import scene

MEAN = {"model": {"pooling": "mean"}}


@pytest.mark.parametrize(
    ("federation", "expected"),
    [
        ({}, ("fedavg", ["by_examples"], "mean", "average")),
        ({"stages": ["uniform"]}, ("fedavg", ["uniform"], "mean", "average")),
        # What an aggregator would ignore is not asked of clients.
        ({"aggregator": "median"}, ("fedavg", ["uniform"], "median", "average")),
        ({"algorithm": "scaffold"}, ("scaffold", ["uniform"], "mean", "scaffold")),
        (
            {
                "algorithm": {"name": "fedprox", "mu": 0.1},
                "stages": [{"name": "clip", "norm": 1.0}, {"name": "top_k", "fraction": 0.5}],
                "server": {"name": "momentum", "nesterov": True},
            },
            ("fedprox", ["by_examples", "clip", "top_k"], "mean", "momentum"),
        ),
    ],
)
def test_the_parts_of_a_round(
    federation: Mapping[str, Any], expected: tuple[Any, ...], tmp_path: Path, zoo: Zoo
) -> None:
    setup = scene(tmp_path, zoo, federation=federation, **MEAN)
    found = setup.program.algorithms["train"]
    stages = [stage.name for stage in found.stages]
    assert (found.name, stages, found.aggregator.name, found.server.name) == expected


def _moved(folder: Path, zoo: Zoo, **federation: Any) -> Tree:
    """What one round adds to the adapter."""
    setup = scene(
        folder, zoo, adapter={"r": 2}, federation={"num_rounds": 1, **federation},
        train={"optimizer": "sgd", "learning_rate": 0.1, "num_train_epochs": 2}, **MEAN,
    )  # fmt: skip
    runtime = InProcess(setup.data.clients, setup.program.algorithms, memory_store())
    plan = Federation(0, "run", 1, len(setup.data.clients))
    *_, last = federate(setup.program, runtime, plan, setup.start)
    before, after = setup.start.server["adapter"], last.position.server["adapter"]
    return {name: after[name] - before[name] for name in before}


def test_their_arguments_reach_them(tmp_path: Path, zoo: Zoo) -> None:
    plain = _moved(tmp_path, zoo)
    half = _moved(tmp_path, zoo, server={"name": "average", "learning_rate": 0.5})
    torch.testing.assert_close(half, {name: 0.5 * x for name, x in plain.items()})
    pulled = _moved(tmp_path, zoo, algorithm={"name": "fedprox", "mu": 5.0})
    clipped = _moved(tmp_path, zoo, stages=[{"name": "clip", "norm": 1e-4}])
    size = {"plain": l2_norm(plain), "pulled": l2_norm(pulled), "clipped": l2_norm(clipped)}
    assert size["pulled"] < 0.99 * size["plain"]
    assert 0 < size["clipped"] <= 1e-4 < size["plain"]


def _orders(setup: Setup) -> list[str]:
    return [" ".join(setup.program.order(number)) for number in range(4)]


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        (
            {"head": "ridge"},
            ["fed3r evaluation", "train", "train evaluation", "train fed3r evaluation"],
        ),
        (
            {"head": "means", "refit_every": 1},
            ["fedncm evaluation", "train fedncm", "train fedncm evaluation",
             "train fedncm evaluation"],
        ),
        (
            {"head": None, "refit_every": 2},
            ["fedlda evaluation", "train", "train fedlda evaluation", "train fedlda evaluation"],
        ),
        (
            {"head": "logistic", "head_exchanges": 2},
            ["fed3r fedlogistic fedlogistic evaluation", "train", "train evaluation",
             "train fed3r fedlogistic fedlogistic evaluation"],
        ),
        ({"head": "train"}, ["evaluation", "train", "train evaluation", "train evaluation"]),
        # A head that trains after it was solved is not thrown away at the end.
        (
            {"head": "ridge", "train_head": True, "refit_every": 2},
            ["fed3r evaluation", "train", "train fed3r evaluation", "train evaluation"],
        ),
    ],
)  # fmt: skip
def test_the_order_of_exchanges(
    adapter: Mapping[str, Any], expected: list[str], tmp_path: Path, zoo: Zoo
) -> None:
    setup = scene(
        tmp_path, zoo, adapter=adapter, federation={"num_rounds": 3}, evaluate={"every": 2}, **MEAN
    )
    assert _orders(setup) == expected


@pytest.mark.parametrize("local_head", ["prototypes", "solved"])
def test_what_local_training_sees_of_a_solved_head(
    local_head: str, tmp_path: Path, zoo: Zoo
) -> None:
    setup = scene(tmp_path, zoo, adapter={"head": "ridge", "local_head": local_head}, **MEAN)
    server = setup.program.algorithms["train"].server
    head = setup.start.server["head"]
    means = {name: value + 1 for name, value in head.items()}
    sent = server.broadcast({**setup.start.server, "prototypes": means}, "ada")["head"].tree
    assert sent is (means if local_head == "prototypes" else head)
    # Round 0 has not given any yet.
    assert server.broadcast(setup.start.server, "ada")["head"].tree is head


@pytest.mark.parametrize("algorithm", ["fednova", "fedopt", "scaffold"])
def test_a_second_server_is_refused(algorithm: str, tmp_path: Path, zoo: Zoo) -> None:
    with pytest.raises(ConfigError) as caught:
        scene(tmp_path, zoo, federation={"algorithm": algorithm, "server": "adam"}, **MEAN)
    assert str(caught.value).endswith(
        f": algorithm '{algorithm}' brings a server of its own; leave federation.server out"
    )


def test_clients_that_cannot_share_a_pass_are_told_once(tmp_path: Path, zoo: Zoo) -> None:
    scene(tmp_path, zoo, adapter={"method": "full"}, **MEAN)
    notes: list[str] = []
    prepare(load(tmp_path / "experiment.yaml"), note=notes.append)
    told = "clients train one after another: a full model trains one client at a time"
    assert notes.count(told) == 1
