"""Bytes of living tensors, counted, and the lines through small stacks that foretell large ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from atoll.plan.estimate import Knobs
from atoll.plan.live import peak_bytes
from atoll.plan.load import Batch
from atoll.plan.memory import needs_of
from atoll.plan.rehearsal import exchange, of_one_step, trainer
from atoll.plan.surface import Surface
from tests.support.models import Zoo
from tests.support.scenes import scene

N, ROOM = 1000, 2**32


def test_what_lives_together_is_added_up_and_what_is_gone_is_not() -> None:
    def work() -> torch.Tensor:
        a = torch.zeros(N)
        b = torch.zeros(2 * N)
        del a
        c = torch.zeros(3 * N)
        return b[0] + c[0]

    # b and c, and the number that is returned.
    assert peak_bytes(work) == 4 * (5 * N + 1)


def test_views_and_what_was_there_before_take_nothing() -> None:
    before = torch.zeros(N, N)

    def work() -> None:
        before.t()
        before[3:].detach().view(-1).add_(1.0)

    assert peak_bytes(work) == 0


def test_backward_passes_are_seen() -> None:
    x = torch.ones(N, requires_grad=True)

    def work() -> torch.Tensor:
        (gradient,) = torch.autograd.grad((x * x).sum(), [x])
        return gradient

    # Forward: the product and its sum. Backward: two products beside those, added up in place.
    assert 3 * 4 * N <= peak_bytes(work) <= 4 * 4 * N + 64


STACKS: dict[str, tuple[str, dict[str, Mapping[str, Any]]]] = {
    "lora": ("bert", {}),
    "trained head, sgd": ("bert", {"adapter": {"head": "train"}, "train": {"optimizer": "sgd"}}),
    "scaffold": ("gpt2", {"federation": {"algorithm": "scaffold"}}),
    "full": ("llama", {"adapter": {"method": "full"}}),
    "top-k": ("llama", {"federation": {"stages": [{"name": "top_k", "fraction": 0.2}]}}),
}  # fmt: skip


@pytest.mark.parametrize("case", STACKS)
def test_one_and_two_clients_foretell_three(case: str, zoo: Zoo, tmp_path: Path) -> None:
    kind, sections = STACKS[case]
    setup = scene(tmp_path, zoo, kind, **sections)
    examples = [one for name in setup.data.clients for one in setup.bench.examples(name, "train")]
    row = max(examples, key=len)
    needs = needs_of(setup, ROOM)
    batch = setup.experiment.train.per_device_train_batch_size

    def took(clients: int, rows: int) -> int:
        algorithm = trainer(setup, of_one_step(setup, row, clients=clients, rows=rows))
        names = [f"client {number}" for number in range(clients)]
        return peak_bytes(lambda: exchange(algorithm, names, setup.start.server))

    def said(clients: int, rows: int) -> int:
        return needs.training.at(Batch(clients, clients * rows, len(row)))

    assert said(1, batch) == pytest.approx(took(1, batch), rel=0.01)
    # Half of a batch takes at most what lies on the line, because the most of two lines bends up.
    assert took(1, batch // 2) <= 1.01 * said(1, batch // 2) <= 1.4 * took(1, batch // 2)
    if setup.bench.group_size > 1:
        assert said(3, batch) == pytest.approx(took(3, batch), rel=0.05)


def test_little_room_tries_less_and_says_about_the_same(zoo: Zoo, tmp_path: Path) -> None:
    setup = scene(tmp_path, zoo, "llama", train={"per_device_train_batch_size": 24})
    whole = needs_of(setup, ROOM)
    small = needs_of(setup, 16 * int(whole.training.one))
    assert 1 < small.training.rows < whole.training.rows == 24
    batch = Batch(2, 48, small.training.length)
    assert small.training.at(batch) == pytest.approx(whole.training.at(batch), rel=0.1)


def test_no_more_rows_are_tried_than_a_run_takes_at_once(zoo: Zoo, tmp_path: Path) -> None:
    """What a trial takes counts as taken so far: 32 rows would say too much for a run of two."""
    setup = scene(tmp_path, zoo, "llama", train={"per_device_train_batch_size": 999})
    counts, common = setup.data.counts.values(), len(setup.common_test() or [])
    needs = needs_of(setup, ROOM)
    assert needs.forward.rows == max(common, *(count.test for count in counts)) < 32
    assert needs.training.rows == sum(count.train for count in counts)


def test_what_cannot_fit_is_not_tried(zoo: Zoo, tmp_path: Path) -> None:
    full: dict[str, Any] = {"method": "full"}
    setup = scene(tmp_path / "adamw", zoo, "llama", adapter=full)
    values = sum(value.nbytes for value in setup.start.server["adapter"].values())
    # Where it starts, where it is, its gradients, and two moments.
    assert needs_of(setup, 5 * values - 1).training.one == 5 * values
    assert needs_of(setup, ROOM).training.one > 5 * values
    plain = scene(tmp_path / "sgd", zoo, "llama", adapter=full, train={"optimizer": "sgd"})
    assert needs_of(plain, 3 * values - 1).training.one == 3 * values


def test_what_clients_keep_is_known(zoo: Zoo, tmp_path: Path) -> None:
    plain = scene(tmp_path / "plain", zoo)
    assert needs_of(plain, ROOM).client == 0
    kept = scene(tmp_path / "kept", zoo, federation={"algorithm": "scaffold"})
    values = sum(value.nbytes for value in kept.start.server["adapter"].values())
    assert needs_of(kept, ROOM).client == values
    # Adapter and head, and for SCAFFOLD one control variate.
    assert needs_of(kept, ROOM).server >= needs_of(plain, ROOM).server + values


def test_smaller_settings_take_less() -> None:
    surface = Surface(one=110, one_many=170, two=130, two_many=250, rows=7, length=8)
    batch = Batch(3, 21, 8)

    def bytes_of(knobs: Knobs) -> int:
        return surface.at(knobs.training(batch))

    assert bytes_of(Knobs()) == 170 + 2 * 80
    assert bytes_of(Knobs(clients=2)) == 250
    assert bytes_of(Knobs(clients=9)) == bytes_of(Knobs())
    assert bytes_of(Knobs(clients=2, rows=1 / 7)) == 130
    assert bytes_of(Knobs(clients=1, rows=4 / 7)) == 140
    # Rows of half the length count as half as many.
    assert bytes_of(Knobs(clients=1, length=0.5)) == round(110 + 60 * 2.5 / 6)
    assert Knobs(measured=0.5).forward(batch).rows == 11
    assert surface.at(Batch()) == 0
