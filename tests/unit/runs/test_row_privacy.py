"""Runs that hide single rows: what they spend, at most, and what leaves no client."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from dp_accounting.pld import privacy_loss_distribution as losses
from safetensors.torch import load_file

from atoll.accounting import stated
from atoll.config.privacy import Privacy
from atoll.config.sections import Train
from atoll.errors import ConfigError, PrivacyError
from atoll.experiment.setup import Setup
from atoll.ledger import verified
from atoll.protection import RowProtection
from atoll.runs.account import LEDGER
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.trained.load_run import load_run
from tests.support.federation import SIZES
from tests.support.models import Zoo
from tests.support.scenes import scene, write_clients

SECTIONS: dict[str, Mapping[str, Any]] = {
    "model": {"pooling": "mean"},
    "adapter": {"r": 2, "target_modules": ["query"], "head": "train"},
    "train": {"per_device_train_batch_size": 2},
    "federation": {"num_rounds": 2},
    "privacy": {"unit": "example", "noise_multiplier": 1.0, "clip": 0.5},
    "evaluate": {"baselines": []},
}


def _setup(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> Setup:
    both = {name: {**SECTIONS.get(name, {}), **sections.get(name, {})} for name in
            {**SECTIONS, **sections}}  # fmt: skip
    return scene(folder, zoo, **both)


def _run(folder: Path, zoo: Zoo, **sections: Mapping[str, Any]) -> dict[str, Any]:
    return run_experiment(_setup(folder, zoo, **sections), folder / "run", Observer())


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_a_run_spends_what_the_rows_of_no_client_exceed(tmp_path: Path, zoo: Zoo) -> None:
    setup, run = _setup(tmp_path, zoo), tmp_path / "run"
    summary = run_experiment(setup, run, Observer())
    counts = [count.train for count in setup.data.counts.values()]
    assert sorted(SIZES) == sorted(setup.data.counts)
    # Batches of 2 rows are expected, over one pass, twice.
    each = [_alone(min(1.0, 2 / count), 2 * -(-count // 2)) for count in counts]
    assert max(each) - 1e-3 <= summary["epsilon"] <= 1.06 * max(each)
    assert summary["privacy"]["unit"] == "example"
    assert summary["privacy"]["adjacency"] == "zero-out"
    assert "of each client's by itself, zero-out (" in (stated(summary) or "")
    assert setup.rows is not None
    assert setup.rows.spent([setup.rows.release]).adjacency == "zero-out"
    assert len(verified(run / LEDGER).releases) == 2
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert {line["loss"] for line in lines} == {None}
    assert [line["clients"] for line in lines[1:]] == [len(counts)] * 2


def _alone(rate: float, steps: int, noise: float = 1.0, delta: float = 1e-5) -> float:
    """The ε of one client's rows, by the accountant itself."""
    one = losses.from_gaussian_mechanism(noise, sampling_prob=rate)
    return float(one.self_compose(steps).get_epsilon_for_delta(delta))


# One row; as many as a batch has; many. All sizes from 20 to 400. The same one for all.
@pytest.mark.parametrize("counts", [(1, 8, 400, 400), tuple(range(20, 401, 20)), (60, 60)])
@pytest.mark.parametrize("epsilon", [8.0, 0.1])
def test_noise_is_what_the_heaviest_client_needs_and_no_other_pays_more(
    counts: tuple[int, ...], epsilon: float
) -> None:
    settings = Privacy(unit="example", epsilon=epsilon, clip=0.5, delta=1e-5)
    rows = {str(place): count for place, count in enumerate(counts)}
    found = RowProtection(settings, Train(per_device_train_batch_size=8), rows, 5)
    noise = found.noise_multiplier
    each = [_alone(min(1.0, 8 / count), 5 * math.ceil(count / 8), noise) for count in counts]
    assert 0.94 * epsilon < max(each) <= epsilon
    told = found.spent([found.release] * 5).epsilon
    assert max(each) - 1e-3 <= told <= epsilon
    assert len(found.release.ways) < 5
    # An audit tries the coin and the steps that are stated: they pay no more than the run does.
    stated = found.statement()["sampling"]["rate"], found.releases
    assert _alone(*stated, noise) <= told + 1e-3
    # What is left of a run is its rounds, whatever their steps.
    assert found.released(noise, found.releases) == found.release.times(5)


def test_two_runs_share_no_noise_and_none_is_none(tmp_path: Path, zoo: Zoo) -> None:
    for name in ("a", "b"):
        _run(tmp_path / name, zoo)
    a, b = (_weights(tmp_path / name / "run") for name in ("a", "b"))
    assert any(not torch.equal(a[n], b[n]) for n in a)


def test_the_noise_in_a_model_is_as_large_as_is_told(tmp_path: Path, zoo: Zoo) -> None:
    """Every row is in its client's one step, so that two runs are apart by noise alone: z·C / n of
    each client, in a mean that weighs it by its n."""
    step = {
        "per_device_train_batch_size": 1000, "optimizer": "sgd", "learning_rate": 1.0,
        "max_steps": 1, "lr_scheduler_type": "constant", "weight_decay": 0.0,
    }  # fmt: skip
    for name in ("a", "b"):
        setup = _setup(
            tmp_path / name, zoo, train=step, federation={"num_rounds": 1},
            privacy={"noise_multiplier": 20.0},
        )  # fmt: skip
        run_experiment(setup, tmp_path / name / "run", Observer())
    a, b = (_weights(tmp_path / name / "run") for name in ("a", "b"))
    apart = torch.cat([(a[name] - b[name]).flatten() for name in a])
    counts = [count.train for count in setup.data.counts.values()]
    one = 20.0 * 0.5 * math.sqrt(len(counts)) / sum(counts)
    assert float(apart.std()) == pytest.approx(
        one * math.sqrt(2), rel=6 / math.sqrt(2 * len(apart))
    )


def test_noise_is_solved_for_the_worst_client(tmp_path: Path, zoo: Zoo) -> None:
    privacy = {"epsilon": 10.0, "noise_multiplier": None}
    summary = _run(tmp_path, zoo, privacy=privacy)
    assert 9.9 < summary["epsilon"] <= 10.0


def test_a_secure_sum_of_hidden_rows(tmp_path: Path, zoo: Zoo) -> None:
    privacy = {"secure_aggregation": True, "min_survivors": 2, "corrupt": 0.0, "dropping": 0.0}
    assert _run(tmp_path, zoo, privacy=privacy)["epsilon"] > 0


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"clip": {"adaptive": True}}, "adaptive, but privacy.unit is example"),
        ({"mechanism": "blt"}, "mechanism is set, but privacy.unit is example"),
        ({"sampling": "fixed"}, "sampling is set, but privacy.unit is example"),
    ],
)
def test_what_is_about_cohorts_is_refused(
    privacy: dict[str, Any], words: str, tmp_path: Path, zoo: Zoo
) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        _setup(tmp_path, zoo, privacy=privacy)


def test_a_loss_across_rows_is_refused_where_the_file_asks_for_it(tmp_path: Path, zoo: Zoo) -> None:
    pairs = {name: [{"anchor": "reef tide", "positive": "coral"}] * 4 for name in "ab"}
    write_clients(tmp_path / "data", pairs)
    sections = {"model": {"task": "embedding"}, "data": {"labels": None}, "adapter": {"head": None}}
    with pytest.raises(PrivacyError, match=r"experiment\.yaml:\d+: privacy\.unit is example, but"):
        _setup(tmp_path, zoo, **sections)


def test_a_solved_head_is_refused(tmp_path: Path, zoo: Zoo) -> None:
    with pytest.raises(ConfigError, match=r"under privacy set adapter\.head to train"):
        _setup(tmp_path, zoo, adapter={"head": "ridge"})


def test_a_run_that_was_summed_is_opened_without_a_row(tmp_path: Path, zoo: Zoo) -> None:
    summed = {"secure_aggregation": True, "min_survivors": 5, "dropping": 0.0}
    _run(tmp_path, zoo, privacy=summed)
    found = load_run(tmp_path / "run", note=lambda text: None)
    assert found.setup.data.clients != ()
    assert all(bool(value.isfinite().all()) for value in found.values.values())
