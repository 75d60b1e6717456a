"""The passes that a plan counts are those that the model makes, seen by a hook on the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.core import Context
from atoll.experiment.setup import Setup
from atoll.local.batches import plan_steps
from atoll.local.features import CACHE_BYTES
from atoll.plan.asked import asked
from atoll.plan.features import Features
from atoll.plan.load import forward_load, step_load
from atoll.plan.phases import baseline_work, round_work
from atoll.plan.rows import rows_of
from atoll.plan.work import Work
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from tests.support.federation import labelled_rows, text_rows
from tests.support.models import Zoo
from tests.support.scenes import scene, write_clients

SIZES_OF_SEVERAL_LABELS = {"ada": 7, "bob": 4, "cy": 11, "dee": 5, "eve": 6}
CASES: dict[str, tuple[str, dict[str, Mapping[str, Any]]]] = {
    "stacks of two": ("bert", {}),
    "one client a pass": ("bert", {"train": {"group_size": 1}}),
    "stacks of four, trained head": (
        "bert", {"train": {"group_size": 4}, "adapter": {"head": "train"}},
    ),
    "two epochs in micro-batches": (
        "bert",
        {"train": {"num_train_epochs": 2, "gradient_accumulation_steps": 2,
                   "per_device_train_batch_size": 2}},
    ),
    "so many steps": ("gpt2", {"train": {"max_steps": 3}}),
    "refits and logistic steps": (
        "bert", {"adapter": {"refit_every": 1, "head": "logistic", "head_exchanges": 2}},
    ),
    "frozen blocks": (
        "llama", {"adapter": {"target_modules": r".*layers\.1\..*_proj"}, "evaluate": {"every": 2}},
    ),
    "packed rows": ("llama", {"data": {"packing": True, "max_length": 64}}),
    "small evaluation batches": (
        "llama", {"train": {"per_device_eval_batch_size": 2}, "adapter": {"method": "full"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_pass_of_a_run_was_counted(case: str, zoo: Zoo, tmp_path: Path) -> None:
    kind, sections = CASES[case]
    federation = {"num_rounds": 2, "clients_per_round": 3}
    if kind == "bert":
        # A client of one label learns nothing from its own head, and so keeps its features.
        write_clients(tmp_path / "data", labelled_rows(SIZES_OF_SEVERAL_LABELS))
    else:
        # Held-out rows of their own, because equal rows are computed once.
        write_clients(tmp_path / "data", text_rows(SIZES_OF_SEVERAL_LABELS), test=0)
    setup = scene(tmp_path, zoo, kind, federation=federation, **sections)
    rows = rows_of(setup)
    rounds, after = round_work(setup, asked(setup), rows), baseline_work(setup, rows)
    seen = _Seen(setup)
    run_experiment(setup, tmp_path / "run", Observer(round=seen.end_of_round))
    assert seen.counts["rounds"] == _counts(sum(rounds.values(), Work()))
    assert seen.counts["after"] == _counts(sum(after.values(), Work()))


def _counts(work: Work) -> dict[str, tuple[float, float]]:
    return {
        "training": (work.training.passes, work.training.cells),
        "forward": (work.forward.passes, work.forward.cells),
        "fresh": (work.fresh.passes, work.fresh.cells),
    }


class _Seen:
    """Passes and cells of the model's inputs until the last round, and after it.

    fresh: of passes that only run the frozen blocks, whose outputs are kept.
    """

    def __init__(self, setup: Setup) -> None:
        self.left = setup.experiment.federation.num_rounds + 1
        self.counts = {
            when: dict.fromkeys(("training", "forward", "fresh"), (0.0, 0.0))
            for when in ("rounds", "after")
        }
        setup.base.model.register_forward_pre_hook(self._look, with_kwargs=True)

    def end_of_round(self, line: object) -> None:
        self.left -= 1

    def _look(self, module: torch.nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        counts = self.counts["rounds" if self.left else "after"]
        name = "training" if torch.is_grad_enabled() else "fresh"
        name = "forward" if torch.is_inference_mode_enabled() else name
        passes, cells = counts[name]
        counts[name] = (passes + 1, cells + inputs["input_ids"].numel())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 7))
def test_rows_in_batches_are_padded_to_the_longest(lengths: list[int], size: int) -> None:
    load = forward_load(lengths, size)
    rows = sorted(lengths)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    assert load.passes == len(batches)
    assert load.cells == sum(max(batch) * len(batch) for batch in batches)
    assert load.largest.cells == max(max(batch) * len(batch) for batch in batches)


def test_a_step_pads_clients_to_the_longest_row_and_the_largest_batch() -> None:
    load = step_load([[3, 9, 4], [5]], 2)
    # First two rows of the one, and one of the other beside a padding row; then one row alone.
    assert load.passes == 2
    assert load.clients == 4
    assert load.cells == 4 * 9 + 2 * 4
    assert (load.largest.clients, load.largest.rows, load.largest.length) == (2, 4, 9)


def test_more_rows_than_are_looked_at_are_scaled(zoo: Zoo, tmp_path: Path) -> None:
    from dataclasses import replace

    from atoll.plan.load import VISITS, training_load

    bench = replace(scene(tmp_path, zoo).bench, group_size=1)
    lengths = [5] * 400
    context = Context(0, "run", 1, 0, ("ada",), 1, "ada")
    epochs = 2 * VISITS / len(lengths)
    steps = len(plan_steps(lengths, context, batch_size=4, epochs=3.0)) / 3 * epochs
    load = training_load(bench, [context], [lengths], epochs=epochs)
    assert load.steps == pytest.approx(steps, rel=1e-3)
    assert load.cells == pytest.approx(steps * 4 * 5, rel=1e-3)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=60))
def test_features_are_held_until_others_need_the_room(asked_for: list[tuple[int, int]]) -> None:
    third = CACHE_BYTES // 3
    features = Features(lambda client: third)
    recent: list[tuple[int, int]] = []
    for one in asked_for:
        missed = features.missed(f"client-{one[0]}", f"{one[1]}")
        assert missed == (one not in recent[-3:])
        recent = [other for other in recent if other != one] + [one]
    assert features.most <= CACHE_BYTES
