"""What no secure sum holds counts as its end, and is told where the clients are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from atoll import core
from atoll.config import load
from atoll.core import Context, Payload
from atoll.experiment.setup import prepare
from atoll.protection.outside import Outside
from atoll.protection.summed import Summed
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.secagg import Channel
from tests.support.models import Zoo
from tests.support.scenes import scene

CHANNELS = (Channel("examples", 1, 4.0, 9), Channel("update", 300, 0.5, 9))
RANGES = {"update": 0.5, "weight": 3.0, "examples": 3.0}


def _payload(update: list[float], rows: float) -> Payload:
    return {
        "update": core.Channel({"w": torch.tensor(update)}, "mean", weight="weight"),
        "weight": core.Channel({"value": torch.tensor(rows)}, "sum"),
        "examples": core.Channel({"count": torch.tensor(rows)}, "sum"),
    }


def test_values_are_cut_to_their_ranges_and_counted() -> None:
    """Also where the grid, a power of 2, goes on: no weight counts for more than its product."""
    summed = Summed(_payload([0.0] * 4, 0), RANGES, undivided=False, most=8)
    (bound,) = {one.bound for one in summed.channels() if one.name == "weight"}
    assert bound > 3.5
    found = summed.values(_payload([0.5, -0.6, 0.1, 7.0], 3.5))
    assert found.outside == {"update": 2, "weight": 1, "examples": 1}
    assert found.vectors["update"] == pytest.approx([1.5, -1.5, 0.3, 1.5])
    assert found.vectors["weight"] == found.vectors["examples"] == [3.0]
    found = summed.values(_payload([0.5, -0.5, 0.1, 0.0], 3.0))
    assert found.outside == {"update": 0, "weight": 0, "examples": 0}
    # Who has fewer rows may add up larger values.
    assert summed.values(_payload([0.75, 0.8, 0.0, 0.0], 2.0)).outside["update"] == 1


def test_a_round_tells_of_the_first_client_and_of_the_first_with_many() -> None:
    said: list[str] = []
    outside = Outside(said.append, 1024)
    for number, client, update, rows in (
        (1, "ada", 0, 0), (1, "bob", 3, 0), (1, "ada", 2, 0), (1, "ada", 4, 0), (1, "bob", 300, 0),
        (2, "ada", 1, 1), (2, "bob", 0, 1),
    ):  # fmt: skip
        at = Context(0, "run", number, number, ("ada", "bob"), 2, client)
        outside.tell(at, CHANNELS, {"examples": rows, "update": update})
    update = "of 300 values of {}'s update are outside of the range of a sum, and count as its end"
    assert said == [
        f"round 1: 3 {update.format('bob')}",
        f"round 1: 4 {update.format('ada')}; privacy.clip is below what updates need",
        "ada has more rows than privacy.max_examples, and counts with so many: 1,024",
        f"round 2: 1 {update.format('ada')}",
    ]


@pytest.mark.parametrize(("how", "runtime"), [
    (True, "inprocess"), ("ckks", "inprocess"), (True, {"name": "processes", "workers": 1}),
])  # fmt: skip
def test_a_run_tells_of_a_clip_and_of_a_number_of_rows_that_are_too_small(
    how: Any, runtime: Any, tmp_path: Path, zoo: Zoo
) -> None:
    privacy = {"secure_aggregation": how, "min_survivors": 2, "clip": 1e-6, "max_examples": 3}
    if how == "ckks":
        pytest.importorskip("tenseal")
    else:
        privacy |= {"corrupt": 0.0, "dropping": 0.0}
    scene(
        tmp_path, zoo, model={"pooling": "mean"}, privacy=privacy,
        federation={"num_rounds": 1, "runtime": runtime},
        adapter={"r": 2, "target_modules": ["query"], "head": "train"}, evaluate={"baselines": []},
    )  # fmt: skip
    said: list[str] = []
    setup = prepare(load(tmp_path / "experiment.yaml"), note=said.append)
    run_experiment(setup, tmp_path / "run", Observer(note=said.append))
    assert sum("has more rows than privacy.max_examples" in text for text in said) == 1
    (told,) = [text for text in said if "update" in text]
    assert told.startswith("round 1: ")
    assert told.endswith("'s update are outside of the range of a sum, and count as its end; "
                         "privacy.clip is below what updates need")  # fmt: skip
