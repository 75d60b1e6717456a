"""Numbers to predict, scaled by what everyone may know of them: nothing of rows is told for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from atoll.experiment.setup import Setup
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from tests.support.scenes import scene, write_clients
from tests.support.text_tasks import number_rows

if TYPE_CHECKING:
    from tests.support.models import Zoo

SCALE = {"mean": 1200, "deviation": 400}
NAMES = ("ada", "bob", "cy", "dee", "eve", "fay")
PRIVACY: dict[str, dict[str, Any]] = {
    "client": {"noise_multiplier": 0.5, "clip": 1.0},
    "example": {"noise_multiplier": 0.5, "clip": 1.0, "unit": "example"},
    "masks": {"secure_aggregation": True, "clip": 1.0},
}


def _setup(folder: Path, zoo: Zoo, privacy: dict[str, Any], *, scale: float = 250.5) -> Setup:
    rows = number_rows(dict.fromkeys(NAMES, 9), scale=scale)
    write_clients(folder / "data", rows)
    return scene(
        folder, zoo, model={"task": "regression"}, adapter={"head": "train"},
        data={"label_scale": SCALE, "labels": None}, privacy=privacy,
        federation={"num_rounds": 1}, evaluate={"baselines": []},
    )  # fmt: skip


@pytest.mark.parametrize("kind", PRIVACY)
def test_a_private_regression_trains_and_says_its_scale(
    tmp_path: Path, zoo: Zoo, kind: str
) -> None:
    setup = _setup(tmp_path, zoo, PRIVACY[kind])
    summary = run_experiment(setup, tmp_path / "run", Observer())
    assert summary["num_rounds"] == 1
    facts = json.loads((tmp_path / "run" / "adapter" / "atoll.json").read_text())
    assert (facts["mean"], facts["deviation"]) == (1200, 400)


def test_losses_are_of_labels_in_the_units_of_the_file(tmp_path: Path, zoo: Zoo) -> None:
    setup = _setup(tmp_path, zoo, PRIVACY["client"])
    objective = setup.bench.objective
    rows = [{"text": "reef", "label": label} for label in (1200.0, 1600.0, 400.0)]
    batch = objective.collate(objective.encode(rows))
    losses = objective.losses(torch.zeros(3, 1), batch, {})
    assert losses.flatten().tolist() == pytest.approx([0.0, 1.0, 4.0])


def test_no_label_moves_the_scale(tmp_path: Path, zoo: Zoo) -> None:
    one, other = (
        _setup(tmp_path / name, zoo, PRIVACY["client"], scale=scale)
        for name, scale in (("a", 250.5), ("b", 9000.0))
    )
    assert one.data.moments == other.data.moments
