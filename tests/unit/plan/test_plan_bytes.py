"""A plan's bytes, exchanges, cohorts and parameters are those of the run itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atoll.experiment.setup import Setup
from atoll.plan.asked import asked
from atoll.plan.plan import make_plan
from atoll.plan.traffic import traffic
from atoll.runs.run import run_experiment
from atoll.runs.summary import trainable_parameters
from atoll.runs.where import Observer
from tests.support.models import Zoo
from tests.support.scenes import scene, write_clients
from tests.support.task_sites import image_rows, pair_rows, preference_rows, seen_rows
from tests.support.text_tasks import number_rows, plain_rows, tagged_rows, topic_rows

if TYPE_CHECKING:
    from tests.support.gallery import Gallery

COHORT = {"num_rounds": 3, "clients_per_round": 2}
CASES: dict[str, tuple[str, dict[str, Mapping[str, Any]]]] = {
    "lda, refits": ("bert", {"adapter": {"refit_every": 1}, "evaluate": {"every": 2}}),
    "ridge on random features": ("bert", {"adapter": {"head": "ridge", "head_features": 24}}),
    "means": ("bert", {"adapter": {"head": "means", "local_head": "solved"}}),
    "logistic": ("bert", {"adapter": {"head": "logistic", "head_exchanges": 3}}),
    "trained head": ("bert", {"adapter": {"head": "train"}}),
    "solved, then trained": ("bert", {"adapter": {"head": "ridge", "train_head": True}}),
    "head alone": ("bert", {"adapter": {"method": "none"}, "federation": {"num_rounds": 0}}),
    "biases": ("bert", {"adapter": {"method": "bitfit"}}),
    "scaffold": ("bert", {"federation": {"algorithm": "scaffold"}}),
    "fednova": ("gpt2", {"federation": {"algorithm": "fednova"}}),
    "int8": ("bert", {"federation": {"stages": [{"name": "quantise", "dtype": "int8"}]}}),
    "bfloat16": ("llama", {"federation": {"stages": [{"name": "quantise", "dtype": "bfloat16"}]}}),
    "top-k": ("bert", {"federation": {"stages": [{"name": "top_k", "fraction": 0.1}]}}),
    "clip, then top-k": (
        "gpt2",
        {"federation": {"stages": [{"name": "clip", "norm": 1.0},
                                   {"name": "top_k", "fraction": 0.3}]}},
    ),
    "int8 down": (
        "bert",
        {"federation": {"broadcast_stages": [{"name": "quantise", "dtype": "int8"}],
                        "num_rounds": 5}, "evaluate": {"every": 2}},
    ),
    "top-k down, everyone": (
        "gpt2",
        {"federation": {"broadcast_stages": [{"name": "top_k", "fraction": 0.1}],
                        "clients_per_round": None, "server": "adam"}},
    ),
    "median": ("bert", {"federation": {"aggregator": "median"}}),
    "adam at the server": ("llama", {"federation": {"server": "adam"}}),
    "sums that hide each client": (
        "bert",
        {"adapter": {"head": "train"}, "federation": {"clients_per_round": None},
         "privacy": {"secure_aggregation": True, "clip": 1.0, "corrupt": 0.0, "dropping": 0.0}},
    ),
    "full": ("llama", {"adapter": {"method": "full"}}),
    "float64": ("bert", {"model": {"dtype": "float64"}}),
}  # fmt: skip


SIZES = {"ada": 5, "bob": 3, "cy": 8}
INT8 = [{"name": "quantise", "dtype": "int8"}]
Rows = Callable[[Mapping[str, int]], Mapping[str, Any]]
TASKS: dict[str, tuple[str, str, Rows, dict[str, Any], dict[str, Any]]] = {
    "masked-lm": (
        "zoo bert", "masked-lm", plain_rows, {"method": "ia3"}, {"algorithm": "fedprox"},
    ),
    "token-classification": (
        "zoo bert", "token-classification", tagged_rows, {"method": "bottleneck"},
        {"algorithm": "fedopt", "stages": INT8},
    ),
    "regression": ("zoo bert", "regression", number_rows, {}, {"algorithm": "scaffold"}),
    "several labels": (
        "zoo bert", "multi-label-classification", topic_rows,
        {"method": "layers", "num_layers": 1, "refit_every": 1}, {},
    ),
    "images": (
        "gallery vit", "image-classification", image_rows,
        {"method": "dora", "head": "train", "config": {"target_modules": ["q_proj"]}}, {},
    ),
    "pairs": (
        "zoo bert-with-pooler", "embedding", pair_rows, {"layers_to_transform": [1]},
        {"aggregator": {"name": "trimmed_mean", "fraction": 0.3}},
    ),
    "images and texts": (
        "gallery clip", "embedding", seen_rows, {"method": "bitfit"}, {"algorithm": "fednova"},
    ),
    "preferences": (
        "zoo llama", "preference", preference_rows, {"use_rslora": True, "r": 3},
        {"stages": [{"name": "top_k", "fraction": 0.2}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_line_of_the_run_was_known_before(case: str, zoo: Zoo, tmp_path: Path) -> None:
    kind, sections = CASES[case]
    federation = {**COHORT, **sections.get("federation", {})}
    evaluate = {"baselines": [], **sections.get("evaluate", {})}
    changed = {**sections, "federation": federation, "evaluate": evaluate}
    setup = scene(tmp_path, zoo, kind, **changed)
    _check(_lines(setup), setup, tmp_path / "run")


@pytest.mark.parametrize("case", TASKS)
def test_every_task_sends_what_was_planned(
    case: str, zoo: Zoo, gallery: Gallery, tmp_path: Path
) -> None:
    model, task, rows, adapter, federation = TASKS[case]
    place, kind = model.split()
    written = {
        client: [{key: value if key != "image" else value.tolist() for key, value in row.items()}
                 for row in own]
        for client, own in rows(SIZES).items()
    }  # fmt: skip
    write_clients(tmp_path / "data", written)
    sections: dict[str, Mapping[str, Any]] = {
        "model": {"name_or_path": (zoo if place == "zoo" else gallery)(kind), "task": task},
        "data": {"max_length": 12},
        "adapter": adapter,
        "federation": {**COHORT, "num_rounds": 2, **federation},
        "evaluate": {"baselines": []},
    }
    setup = scene(tmp_path, zoo, **sections)
    _check(_lines(setup), setup, tmp_path / "run")


def _check(planned: list[dict[str, int]], setup: Setup, run: Path) -> None:
    """Run it, and hold its lines to the plan's."""
    summary = run_experiment(setup, run, Observer())
    lines = (run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    ran = [json.loads(line) for line in lines]
    assert all(not line["failures"] for line in ran)
    assert planned == [{name: line[name] for name in planned[0]} for line in ran]
    for name in ("bytes_up", "bytes_down", "exchanges"):
        assert sum(line[name] for line in planned) == summary[name]
    assert trainable_parameters(setup) == summary["trainable_parameters"]


def _lines(setup: Setup) -> list[dict[str, int]]:
    """What the lines of rounds.jsonl hold, added up here from single exchanges."""
    found: dict[int, dict[str, int]] = {}
    for one in traffic(setup, asked(setup)):
        context, kind = one.asked.context, one.asked.kind
        line = found.setdefault(
            context.round,
            {"round": context.round, "bytes_up": 0, "bytes_down": 0, "exchanges": 0, "clients": 0},
        )
        line["bytes_up"] += one.bytes_up
        line["bytes_down"] += one.bytes_down
        line["exchanges"] += kind == "exchange"
        line["clients"] += len(context.cohort) if kind == "round" else 0
    return list(found.values())


def test_the_plan_writes_nothing_and_leaves_the_setup_as_it_was(zoo: Zoo, tmp_path: Path) -> None:
    setup = scene(tmp_path, zoo, federation={"num_rounds": 2, "clients_per_round": 2})
    before = set(tmp_path.rglob("*"))
    made = make_plan(setup, tmp_path / "run")
    assert set(tmp_path.rglob("*")) == before
    one = run_experiment(setup, tmp_path / "run", Observer())
    fresh = scene(tmp_path / "again", zoo, federation={"num_rounds": 2, "clients_per_round": 2})
    two = run_experiment(fresh, tmp_path / "again" / "run", Observer())
    assert one["final"] == two["final"]
    assert [line.bytes_up for line in made.rounds] == [
        json.loads(line)["bytes_up"]
        for line in (tmp_path / "run" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    size = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert 0.5 * size < sum(made.disk.values()) < 2 * size


@pytest.mark.parametrize("noise", [{}, {"noise_multiplier": 1.0, "sampling": "everyone"}])
def test_a_plan_hides_updates_where_outputs_of_frozen_blocks_are_kept(
    noise: dict[str, Any], zoo: Zoo, tmp_path: Path
) -> None:
    secure = {"secure_aggregation": True, "clip": 1.0, "corrupt": 0.0, "dropping": 0.0}
    setup = scene(
        tmp_path, zoo, adapter={"method": "none", "head": "train"},
        federation={"num_rounds": 2}, privacy={**secure, **noise}, evaluate={"baselines": []},
    )  # fmt: skip
    assert setup.bench.prefix is not None
    made = make_plan(setup, tmp_path / "run")
    run_experiment(setup, tmp_path / "run", Observer())
    lines = (tmp_path / "run" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    assert [(line.bytes_up, line.bytes_down) for line in made.rounds] == [
        (line["bytes_up"], line["bytes_down"]) for line in map(json.loads, lines)
    ]
