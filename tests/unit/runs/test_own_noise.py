"""Runs whose clients add the noise: what they spend, against whom, and that it is there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
from safetensors.torch import load_file

from atoll.accounting import Shared, stated
from atoll.core import Context, Exchange
from atoll.errors import ConfigError
from atoll.experiment.setup import Setup
from atoll.ledger import verified
from atoll.protection import Spread
from atoll.runs.account import LEDGER
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.tree import l2_norm
from tests.support.models import Zoo
from tests.support.scenes import scene

SECURE = {"secure_aggregation": True, "min_survivors": 3, "corrupt": 0.2, "dropping": 0.2}
SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "train": {"optimizer": "sgd", "learning_rate": 0.1},
    "federation": {"num_rounds": 2},
    "evaluate": {"baselines": []},
}
KINDS: dict[str, Mapping[str, Any]] = {
    "local": {"mechanism": "local"},
    "distributed": {"mechanism": "distributed", **SECURE},
    "skellam": {"mechanism": "distributed", "noise": "skellam", **SECURE},
}


def _setup(folder: Path, zoo: Zoo, privacy: Mapping[str, Any], **more: Mapping[str, Any]) -> Setup:
    chosen = {"clip": 0.3, "epsilon": 8.0, **privacy}
    return scene(folder, zoo, **{**SECTIONS, **more, "privacy": chosen})


def _run(folder: Path, zoo: Zoo, privacy: Mapping[str, Any], **more: Mapping[str, Any]) -> Any:
    run_experiment(_setup(folder, zoo, privacy, **more), folder / "run", Observer())
    return json.loads((folder / "run" / "summary.json").read_text())


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "run" / "adapter" / "adapter_model.safetensors")


def _spread(setup: Setup) -> Spread:
    assert isinstance(setup.protection, Spread)
    return setup.protection


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_keeps_its_promise_against_the_server(kind: str, tmp_path: Path, zoo: Zoo) -> None:
    summary = _run(tmp_path, zoo, KINDS[kind])
    # With more clients than were counted on, sums have more noise than was solved for.
    low, high = (7.9, 8.0) if kind == "local" else (6.0, 7.0)
    assert low < summary["epsilon"] <= high
    assert summary["privacy"]["readers_epsilon"] <= summary["epsilon"]
    told = verified(tmp_path / "run" / LEDGER)
    releases = [release for _, release in told.releases]
    # Written down for the worst before, and as it was after: all five answered.
    assert [isinstance(one, Shared) and one.survivors for one in releases] == [5, 5]
    assert len(told.lines) == 4
    text = stated(summary)
    assert text is not None
    assert "against the server" in text
    assert "sees models only" in text


def test_one_floor_is_told_of_all_sums(tmp_path: Path, zoo: Zoo) -> None:
    """Four of five stay, where a fifth may drop out; the file alone would let three be summed."""
    summary = _run(tmp_path, zoo, KINDS["distributed"])
    assert summary["secure_sums"]["least"] == summary["privacy"]["floor"] == 4


def test_a_run_that_released_nothing_is_told_in_words(tmp_path: Path, zoo: Zoo) -> None:
    setup = _setup(tmp_path, zoo, KINDS["distributed"])
    nothing = {"adjacency": "add-or-remove-one", "accountant": "closed form", "releases": 0,
               "readers_epsilon": None}  # fmt: skip
    said = stated(
        {"epsilon": 0.0, "delta": 1e-5, "privacy": {**_spread(setup).statement(), **nothing}}
    )
    assert said is not None
    assert "over 0 releases, against the server, which knows whom it asks. Updates" in said


def test_local_noise_is_that_of_the_gaussian_mechanism(tmp_path: Path, zoo: Zoo) -> None:
    summary = _run(tmp_path, zoo, {"mechanism": "local", "epsilon": None, "noise_multiplier": 4.0})
    # Two releases of noise 4 clips; any two updates are two clips apart.
    assert summary["epsilon"] == pytest.approx(get_epsilon_gaussian(2 / math.sqrt(2), 1e-5))


def test_distributed_noise_counts_without_those_who_may_tell_theirs(
    tmp_path: Path, zoo: Zoo
) -> None:
    noise = {"epsilon": None, "noise_multiplier": 2.0}
    (sum_of,) = {one for _, one in _ledger(tmp_path, zoo, {**KINDS["distributed"], **noise})}
    assert isinstance(sum_of, Shared)
    # Of five one may drop out, and of the rest one collude: three make up the noise.
    assert (sum_of.survivors, sum_of.colluding) == (5, 1)
    own = sum_of.sigma / sum_of.norm * math.sqrt(3)
    assert own == pytest.approx(2.0, rel=0.01)


def test_a_round_counts_with_the_clients_that_were_summed(tmp_path: Path, zoo: Zoo) -> None:
    spread = _spread(_setup(tmp_path, zoo, KINDS["distributed"]))

    def after(summed: str) -> Shared | None:
        folded = dict.fromkeys(summed, 1)
        exchange = Exchange("train", "round", tuple("abcde"), (), {}, {}, 0, 0, folded)
        return spread.happened(exchange)

    assert after("") is None
    four, five = after("abde"), after("abcde")
    assert four is not None
    assert five is not None
    assert [(one.survivors, one.asked) for one in (four, five)] == [(4, 5), (5, 5)]
    assert spread.spent([four]).epsilon > spread.spent([five]).epsilon


def _ledger(folder: Path, zoo: Zoo, privacy: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    _run(folder, zoo, privacy)
    return verified(folder / "run" / LEDGER).releases


@pytest.mark.parametrize("kind", ["local", "distributed"])
def test_an_update_is_cut_to_the_norm_that_its_noise_is_made_for(
    kind: str, tmp_path: Path, zoo: Zoo
) -> None:
    setup = _setup(tmp_path, zoo, KINDS[kind])
    algorithm, at = setup.program.algorithms["train"], Context(0, "run", 1, 1, ("ada",), 1, "ada")
    like = algorithm.client.template(algorithm.server.broadcast(setup.start.server, "ada"))
    payload = {
        name: one.with_tree({key: torch.full(v.shape, 7.0, dtype=v.dtype)
                             for key, v in one.tree.items()})
        for name, one in like.items()
    }  # fmt: skip
    for stage in algorithm.stages:
        if stage.name in ("own_noise", "masks"):
            break
        payload, _ = stage.encode(at, payload, {})
    assert l2_norm(payload["update"].tree) == pytest.approx(0.3, rel=1e-5)
    assert l2_norm(payload["update"].tree) <= _spread(setup).clip == 0.3


@pytest.mark.parametrize("kind", ["local", "distributed"])
def test_with_hardly_any_noise_a_run_is_the_plain_one(kind: str, tmp_path: Path, zoo: Zoo) -> None:
    plain = {"mechanism": "gaussian", "epsilon": None, "noise_multiplier": 0.0, "clip": 0.3}
    little = {"epsilon": None, "noise_multiplier": 1e-4}
    _run(tmp_path / "a", zoo, plain)
    _run(tmp_path / "b", zoo, {**KINDS[kind], **little})
    one, other = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    apart = max(float((one[name] - other[name]).abs().max()) for name in one)
    assert 0 < apart < 1e-3
    assert max(float(value.abs().max()) for value in one.values()) > 0.01


@pytest.mark.parametrize("kind", ["local", "distributed"])
def test_the_noise_in_a_model_is_as_large_as_is_told(kind: str, tmp_path: Path, zoo: Zoo) -> None:
    noise = {"epsilon": None, "noise_multiplier": 50.0}
    found = _run(tmp_path, zoo, {**KINDS[kind], **noise})["export"]
    # A signal of at most 0.3 a client and round, beside noise of 15.
    setup = _setup(tmp_path / "again", zoo, {**KINDS[kind], **noise})
    count = _spread(setup).values
    honest = 1 if kind == "local" else 3
    size = 50 * 0.3 / math.sqrt(honest) * math.sqrt(2 * count / 5)
    assert found["noise"] == pytest.approx(size, rel=1e-6)
    state = setup.start.server
    start = torch.cat(
        [v.double().reshape(-1) for p in ("adapter", "head") for v in state[p].values()]
    )
    assert found["moved"] * float(start.norm()) == pytest.approx(size, rel=0.15)


@pytest.mark.long
def test_two_runs_share_no_noise_and_workers_add_it_too(tmp_path: Path, zoo: Zoo) -> None:
    noise = {**KINDS["local"], "epsilon": None, "noise_multiplier": 5.0}
    _run(tmp_path / "a", zoo, noise)
    workers = {**SECTIONS["federation"], "runtime": {"name": "processes", "workers": 2}}
    found = _run(tmp_path / "b", zoo, noise, federation=workers)["export"]
    one, other = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    # Independent noise, which is nearly all of B, is √2 times as far apart as it is long.
    for b in (name for name in one if "lora_B" in name):
        assert 1 < float((one[b] - other[b]).norm() / one[b].norm()) < 2
    assert found["moved"] > 1
    (key,) = (tmp_path / "b" / "run").rglob("noise.key")
    assert key.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"mechanism": "distributed"}, "set privacy.secure_aggregation to true"),
        ({"mechanism": "local", "secure_aggregation": True}, "set mechanism to distributed"),
        ({"mechanism": "local", "clip": {"adaptive": True}}, "give a number"),
        ({"mechanism": "local", "sampling": "turns"}, "helps blt alone"),
        ({"mechanism": "local", "noise": "skellam"}, "it is the kind of distributed noise"),
        ({"mechanism": "local", "epsilon": None, "noise_multiplier": 0.0}, "give a number above 0"),
        ({"mechanism": "distributed", **SECURE, "min_survivors": 6}, "a round asks 5 clients"),
        (
            {"mechanism": "distributed", **SECURE, "corrupt": 0.6},
            "and 5 clients to the end; of 5 1",
        ),
        ({"mechanism": "local", "unit": "example"}, "remove privacy.mechanism"),
    ],
)
def test_what_would_hide_nobody_is_refused(
    privacy: Mapping[str, Any], words: str, tmp_path: Path, zoo: Zoo
) -> None:
    with pytest.raises(ConfigError, match=words):
        _setup(tmp_path, zoo, privacy)


def test_cohorts_that_are_too_small_as_a_rule_are_refused(tmp_path: Path, zoo: Zoo) -> None:
    """Now and then coins draw all five; two are asked."""
    few = {**SECTIONS["federation"], "fraction_train": 0.4}
    with pytest.raises(ConfigError, match="a round asks 2 clients: secure aggregation"):
        _setup(tmp_path, zoo, KINDS["distributed"], federation=few)
