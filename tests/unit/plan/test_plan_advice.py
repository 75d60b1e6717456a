"""What a plan advises makes the run fit, when it is typed as it stands there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.config import load
from atoll.experiment.setup import Setup, prepare
from atoll.plan.advice import disk_advice, memory_advice, time_advice
from atoll.plan.asked import asked
from atoll.plan.clock import Seconds
from atoll.plan.estimate import Knobs, Memory, memory_use
from atoll.plan.memory import Needs, needs_of
from atoll.plan.phases import baseline_work, round_work
from atoll.plan.rows import rows_of
from atoll.plan.work import Work
from tests.support.models import Zoo
from tests.support.scenes import scene

ROOM = 2**32


def _works(setup: Setup) -> dict[str, Work]:
    rows = rows_of(setup)
    return {**round_work(setup, asked(setup), rows), **baseline_work(setup, rows)}


def _use(setup: Setup, needs: Needs, knobs: Knobs | None = None) -> Memory:
    # The process itself is far larger than a tiny model, and is left out.
    only = replace(needs, before=0, highest=0)
    return memory_use(setup, only, _works(setup), {}, knobs)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_each_piece_of_advice_is_enough_by_itself(kind: str, zoo: Zoo, tmp_path: Path) -> None:
    train: dict[str, Any] = {"per_device_train_batch_size": 8, "group_size": 4}
    setup = scene(tmp_path, zoo, kind, train=train, federation={"num_rounds": 1})
    needs = needs_of(setup, ROOM)
    most = _use(setup, needs)
    limit = int(most.peak * 0.8)
    found = list(memory_advice(setup, limit, lambda knobs: _use(setup, needs, knobs)))
    assert found
    assert found[0].values[0].startswith("train.group_size=")
    for one in found:
        assert one.leaves is not None
        assert one.leaves <= limit
        again = prepare(
            load(tmp_path / "experiment.yaml", overrides=list(one.values)), note=lambda text: None
        )
        took = _use(again, needs_of(again, ROOM)).peak
        assert took <= 1.15 * limit, one


def test_where_no_batch_is_small_enough_less_must_train(zoo: Zoo, tmp_path: Path) -> None:
    setup = scene(tmp_path, zoo, "llama", adapter={"method": "full"})
    needs = needs_of(setup, ROOM)
    found = list(memory_advice(setup, 0, lambda knobs: _use(setup, needs, knobs)))
    assert [one.values for one in found][:4] == [
        ("train.gradient_checkpointing=true",), ("adapter.method=lora",), ("model.dtype=bfloat16",),
        ("train.optimizer=sgd",),
    ]  # fmt: skip
    lora = scene(tmp_path / "lora", zoo, "llama")
    assert _use(lora, needs_of(lora, ROOM)).peak < _use(setup, needs).peak


def test_long_runs_are_told_what_takes_long(zoo: Zoo, tmp_path: Path) -> None:
    setup = scene(tmp_path, zoo, federation={"num_rounds": 10})
    spent = {"training": 3000.0, "head": 100.0, "evaluation": 2000.0, "local": 4000.0,
             "pooled": 400.0, "measuring": 10.0}  # fmt: skip
    seconds = {name: Seconds(one, one) for name, one in spent.items()}
    found = {one.values[0].partition("=")[0]: one for one in time_advice(setup, seconds, 4)}
    baselines = found["evaluate.baselines"]
    assert baselines.values == ("evaluate.baselines=[pooled]",)
    assert baselines.leaves == pytest.approx(sum(spent.values()) - 4000)
    # Measured eleven times, then twice.
    assert found["evaluate.every"].values == ("evaluate.every=10",)
    assert found["evaluate.every"].leaves == pytest.approx(sum(spent.values()) - 2000 * 9 / 11)
    assert found["federation.num_rounds"].values == ("federation.num_rounds=3",)
    for one in found.values():
        load(tmp_path / "experiment.yaml", overrides=list(one.values))


def test_a_full_disk_is_told_what_fills_it(zoo: Zoo, tmp_path: Path) -> None:
    setup = scene(tmp_path, zoo, evaluate={"load_best": True})
    parts = {"adapter": 10, "checkpoints": 20, "client_state": 100, "records": 1}
    values = [one.values for one in disk_advice(setup, parts)]
    assert values == [
        ("evaluate.load_best=false",),
        ("federation.algorithm=fedavg", "federation.stages=[]"),
        ("output_dir=...",),
    ]
