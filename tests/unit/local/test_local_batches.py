"""Every row once an epoch, the same wherever and whenever it is asked, and little padding."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from atoll.config.sections import Train
from atoll.core import Context
from atoll.local.batches import plan_steps
from tests.support.federation import labelled_rows, site
from tests.support.models import Zoo


def _context(client: str = "ada", *, round: int = 1, seed: int = 0, cohort: int = 2) -> Context:
    names = tuple(f"client{i}" for i in range(cohort))
    return Context(seed, "run", round, round, names, 10, client)


lengths = st.lists(st.integers(1, 90), min_size=1, max_size=200)


@hypothesis(max_examples=60, deadline=None)
@given(lengths, st.integers(1, 9), st.integers(1, 3))
def test_every_row_once_an_epoch(found: list[int], size: int, epochs: int) -> None:
    steps = plan_steps(found, _context(), batch_size=size, epochs=epochs)
    per_epoch = -(-len(found) // size)
    assert len(steps) == epochs * per_epoch
    for epoch in range(epochs):
        rows = [row for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for row in step]
        assert sorted(rows) == list(range(len(found)))
    sizes = Counter(map(len, steps[:per_epoch]))
    assert sizes[size] >= len(found) // size


@hypothesis(max_examples=60, deadline=None)
@example(7, 29)
@given(st.integers(1, 60), st.integers(1, 120))
def test_as_many_steps_as_asked(per_epoch: int, wanted: int) -> None:
    steps = plan_steps([3] * per_epoch, _context(), batch_size=1, epochs=wanted / per_epoch)
    assert len(steps) == wanted


def test_part_of_an_epoch_is_rounded_up_to_a_step() -> None:
    assert len(plan_steps([1] * 10, _context(), batch_size=2, epochs=0.5)) == 3
    assert len(plan_steps([1] * 10, _context(), batch_size=2, epochs=1.1)) == 6
    assert len(plan_steps([1] * 10, _context(), batch_size=2, epochs=0.01)) == 1


def test_the_address_and_nothing_else_decides() -> None:
    found = [random.Random(1).randint(1, 60) for _ in range(100)]
    first = plan_steps(found, _context(), batch_size=4, epochs=2)
    np.random.seed(7)
    random.seed(7)
    assert plan_steps(found, _context(cohort=9), batch_size=4, epochs=2) == first
    assert first[:25] != first[25:], "epochs are shuffled anew"
    for other in (_context("bob"), _context(round=2), _context(seed=1)):
        assert plan_steps(found, other, batch_size=4, epochs=2) != first


@pytest.mark.parametrize(("count", "size"), [(9, 8), (11, 8), (20, 8), (37, 4), (66, 8)])
def test_every_row_is_as_often_in_the_smaller_batch(count: int, size: int) -> None:
    """Whatever its length: m of n rows are left over, so that each is with probability m/n."""
    found = [1 + row * row for row in range(count)]
    rounds, left_over = 3000, count % size
    times = np.zeros(count)
    for number in range(rounds):
        steps = plan_steps(found, _context(round=number), batch_size=size, epochs=1)
        (small,) = [step for step in steps if len(step) < size]
        assert len(small) == left_over
        times[small] += 1
    share = left_over / count
    deviation = (share * (1 - share) / rounds) ** 0.5
    assert float(np.abs(times / rounds - share).max()) < 4.5 * deviation


def test_the_smaller_batch_takes_neighbours() -> None:
    """Rows next to each other in length, unless the longest and the shortest meet."""
    found = [5 * row for row in range(20)]
    apart = 0
    for number in range(300):
        steps = plan_steps(found, _context(round=number), batch_size=8, epochs=1)
        (small,) = [sorted(step) for step in steps if len(step) < 8]
        apart += small[-1] - small[0] > 3
        assert small[-1] - small[0] == 3 or {0, 19} <= set(small)
    assert apart / 300 == pytest.approx(3 / 20, abs=0.08)


@pytest.mark.parametrize("tail", [1.0, 1.5])
def test_less_padding_than_random_batches(tail: float) -> None:
    draw = random.Random(3)
    found = [min(128, int(8 * draw.paretovariate(tail))) for _ in range(600)]

    def padding(steps: list[list[int]]) -> int:
        return sum(
            len(step) * max(found[row] for row in step) - sum(found[row] for row in step)
            for step in steps
        )

    order = draw.sample(range(600), 600)
    at_random = padding([order[i : i + 8] for i in range(0, 600, 8)])
    bucketed = padding(plan_steps(found, _context(), batch_size=8, epochs=1))
    assert bucketed < 0.4 * at_random


def test_clients_of_a_stack_meet_rows_of_like_length() -> None:
    draw = random.Random(4)
    of = {name: [draw.randint(1, 100) for _ in range(64)] for name in ("ada", "bob", "cy")}
    plans = {name: plan_steps(found, _context(name), batch_size=8, epochs=1)
             for name, found in of.items()}  # fmt: skip
    width = np.array([[max(of[name][row] for row in step) for step in steps]
                      for name, steps in plans.items()])  # fmt: skip
    # The stack pads to its longest row: bucketed alike, that costs little more than each alone.
    assert width.max(0).sum() < 1.15 * width.sum(1).mean()
    assert len(set(width[0].tolist())) > 4, "lengths are not sorted in place"


def test_short_and_long_batches_come_in_no_order() -> None:
    found = list(range(1, 65))
    steps = plan_steps(found, _context(), batch_size=8, epochs=1)
    means = [np.mean([found[row] for row in step]) for step in steps]
    assert sorted(means) != means
    assert sorted(means, reverse=True) != means


@pytest.mark.parametrize(("settings", "expected"), [
    ({}, {"ada": 3, "bob": 1}),
    ({"num_train_epochs": 2}, {"ada": 6, "bob": 2}),
    ({"gradient_accumulation_steps": 2}, {"ada": 2, "bob": 1}),
    ({"max_steps": 5}, {"ada": 5, "bob": 5}),
    ({"max_steps": 1, "num_train_epochs": 4}, {"ada": 1, "bob": 1}),
])  # fmt: skip
def test_settings_give_the_number_of_steps(
    zoo: Zoo, settings: dict[str, int], expected: dict[str, int]
) -> None:
    assert Train(**settings) is not None
    there = site(zoo, adapter={"method": "none"}, train=settings,
                 rows=labelled_rows({"ada": 5, "bob": 2}))  # fmt: skip
    trained, _ = there.train(group_size=2)
    assert {client: one.steps for client, one in trained.items()} == expected
