"""Learning rates tried on one client: what each does to the loss, and which one is taken."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from atoll.experiment.setup import Setup
from atoll.plan.probe import FACTORS, FIRST, Trial, probe
from tests.support.federation import labelled_rows
from tests.support.models import Zoo
from tests.support.scenes import scene, write_clients

TRAIN = {"learning_rate": 0.01, "per_device_train_batch_size": 4, "device": "cpu"}


def _scene(tmp_path: Path, zoo: Zoo, kind: str = "llama", **train: float) -> Setup:
    return scene(
        tmp_path, zoo, kind, train={**TRAIN, **train}, federation={"num_rounds": 4},
        model={"dtype": "float64"},
    )  # fmt: skip


def test_time_decides_only_how_many_trials_there_are(zoo: Zoo, tmp_path: Path) -> None:
    setup = _scene(tmp_path, zoo)
    long = probe(setup)
    # Of a clock that jumps, a budget holds one set of trials, whatever it was.
    jumps = itertools.count(0, 1000)
    short = probe(setup, clock=lambda: float(next(jumps)))
    assert len(short.trials) == len(FACTORS)
    assert short.trials == long.trials[: len(short.trials)]
    assert len(long.trials) > len(short.trials)
    assert {one.steps for one in short.trials} == {FIRST}
    assert (short.client, short.before, short.rows) == (long.client, long.before, long.rows)
    again = probe(_scene(tmp_path / "again", zoo))
    assert again.trials == long.trials
    assert again.take == long.take


def test_the_largest_client_is_tried_for_no_more_steps_than_it_would_take(
    zoo: Zoo, tmp_path: Path
) -> None:
    setup = _scene(tmp_path, zoo)
    found = probe(setup)
    assert found.client == "cy"
    # 11 rows are three steps of four, in each of four rounds.
    assert max(one.steps for one in found.trials) == 12
    # Two held-out rows say too little.
    assert not found.held_out
    assert found.rows == 11


def test_losses_are_those_of_the_model_itself(zoo: Zoo, tmp_path: Path) -> None:
    setup = _scene(tmp_path, zoo)
    found = probe(setup, budget=0)
    rows = setup.bench.examples("cy", "train")
    model = setup.base.model
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor(row.ids.tolist()).unsqueeze(0)
        chances = model(input_ids=ids).logits[0].double().log_softmax(-1)
        for place, token in enumerate(row.target.tolist()):
            if place and token >= 0:
                total -= float(chances[place - 1, token])
                count += 1
    assert found.before == pytest.approx(total / count, rel=1e-6)


def test_training_lowers_the_loss_and_a_wild_rate_diverges(zoo: Zoo, tmp_path: Path) -> None:
    setup = scene(
        tmp_path, zoo, train={**TRAIN, "learning_rate": 1000.0}, adapter={"head": "train"},
        federation={"num_rounds": 4},
    )  # fmt: skip
    found = probe(setup)
    wild = [one for one in found.trials if one.learning_rate == 10_000.0]
    # It is tried once, and not again for longer.
    assert [one.diverged for one in wild] == [True]
    assert found.take is None or found.take < 10_000.0
    calm = probe(_scene(tmp_path / "calm", zoo, learning_rate=0.003))
    last = {one.learning_rate: one.after for one in calm.trials if one.steps == 12}
    assert all(after is not None and after < calm.before for after in last.values())
    best = min(last, key=lambda rate: last[rate] or math.inf)
    assert calm.take in (best, 0.003)


def test_a_solved_head_is_solved_before_it_is_tried(zoo: Zoo, tmp_path: Path) -> None:
    heard: list[Trial] = []
    found = probe(_scene(tmp_path, zoo, "bert"), budget=0, step=heard.append)
    assert tuple(heard) == found.trials
    # A head of zeros would make every class as likely as any other, and nothing would move.
    assert found.before != pytest.approx(math.log(4), rel=1e-6)
    assert len({one.after for one in found.trials}) == len(found.trials)


def test_held_out_rows_are_measured_where_there_are_enough(zoo: Zoo, tmp_path: Path) -> None:
    rows = labelled_rows({"ada": 40, "bob": 9})
    write_clients(tmp_path / "data", rows, test=20)
    found = probe(_scene(tmp_path, zoo, "bert"), budget=0)
    assert (found.client, found.held_out, found.rows) == ("ada", True, 20)
