"""Ridge regression of numbers from sums: scikit-learn's, whatever the split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeCV

from atoll.algorithms.heads.fed3r import fed3r
from atoll.config import Adapter
from atoll.core import State
from atoll.errors import CompositionError
from atoll.experiment.program import head_methods
from atoll.local.bench import Bench
from tests.support.heads import Rows, exchange, head_bench, labelled

N, D, C = 60, 5, 3
DRAW = np.random.default_rng(3)
X = DRAW.normal(size=(N, D))
Y = X @ DRAW.normal(size=(D, C)) + [2.0, -1.0, 0.0] + DRAW.normal(size=(N, C))
PENALTY = 0.3


def _split(owners: Any, *, bias: bool, columns: int = C) -> Rows:
    owned, found = np.asarray(owners), {}
    for owner in sorted(set(owned.tolist())):
        x = torch.from_numpy(X[owned == owner]).float()
        if bias:
            x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        found[f"client{owner}"] = (x, torch.from_numpy(Y[owned == owner, :columns]).float())
    return found


def _bench(clients: Rows, real: Any, *, bias: bool, columns: int = C) -> Bench:
    blank = {client: (x, [0] * len(y)) for client, (x, y) in clients.items()}
    bench = head_bench(D, columns, bias=bias, clients=blank)
    return replace(bench, objective=replace(bench.objective, real=real))


def _solved(owners: Any, real: Any, *, bias: bool = True, penalty: float | None = PENALTY) -> State:
    clients = _split(owners, bias=bias)
    bench = _bench(clients, real, bias=bias)
    head = {"classifier.weight": torch.zeros(C, D)}
    if bias:
        head["classifier.bias"] = torch.zeros(C)
    algorithm = fed3r(bench, labelled(clients), penalty=penalty)
    return exchange(algorithm, {"adapter": {}, "head": head}, clients)


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_ridge_regression(bias: bool) -> None:
    state = _solved(np.arange(N) % 4, (1.0, 0.0), bias=bias)
    expected = Ridge(alpha=PENALTY, fit_intercept=bias).fit(X, Y)
    head = state["head"]
    assert head["classifier.weight"].numpy() == pytest.approx(expected.coef_, rel=1e-4, abs=1e-5)
    if bias:
        assert head["classifier.bias"].numpy() == pytest.approx(expected.intercept_, rel=1e-4)
    assert "prototypes" not in state


@given(owners=st.lists(st.integers(0, 5), min_size=N, max_size=N))
@hypothesis(max_examples=20, deadline=None)
def test_the_split_changes_nothing(owners: list[int]) -> None:
    together, apart = (_solved(split, (1.0, 0.0))["head"] for split in ([0] * N, owners))
    for name, value in together.items():
        assert torch.allclose(value, apart[name], rtol=1e-4, atol=1e-5)


def test_outputs_are_what_the_task_makes_of_the_regression() -> None:
    plain, made = (_solved([0] * N, real)["head"] for real in ((1.0, 0.0), (10.0, 0.5)))
    assert torch.allclose(made["classifier.weight"], 10 * plain["classifier.weight"])
    assert torch.allclose(made["classifier.bias"], 10 * (plain["classifier.bias"] - 0.5))


def test_the_penalty_is_cross_validated() -> None:
    found = _solved(np.arange(N) % 7, (1.0, 0.0), penalty=None)["head"]["classifier.weight"]
    unit = float(((X - X.mean(0)) ** 2).sum()) / D
    penalties = [unit * 10 ** (step / 2) for step in range(-10, 3)]
    # scikit-learn's generalised cross-validation of all outputs together.
    best = RidgeCV(alphas=penalties, alpha_per_target=False).fit(X, Y)
    assert found.numpy() == pytest.approx(best.coef_, rel=1e-3, abs=1e-4)


def test_numbers_are_solved_by_ridge_unless_they_are_trained() -> None:
    clients = _split(np.arange(N) % 2, bias=True)
    bench = _bench(clients, (1.0, 0.0), bias=True)
    (solve,) = head_methods(bench, Adapter(), labelled(clients)).sequence
    assert solve.name == "fed3r"
    assert head_methods(bench, Adapter(head="train"), labelled(clients)).sequence == ()


def test_several_labels_need_a_bias() -> None:
    clients = _split([0] * N, bias=False)
    bench = _bench(clients, (10.0, 0.5), bias=False)
    with pytest.raises(CompositionError, match="needs a bias under this task"):
        fed3r(bench, labelled(clients))
    assert fed3r(_bench(clients, (1.0, 0.0), bias=False), labelled(clients))
