"""Heads from sums against scikit-learn on the pooled rows, and the same for every split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid

from atoll.algorithms.heads.fed3r import (
    PENALTIES,
    Regression,
    best_penalty,
    cross_validated,
    fed3r,
    regression,
)
from atoll.algorithms.heads.fedlda import discriminant, fedlda, oracle_shrinkage
from atoll.algorithms.heads.fedlogistic import fedlogistic
from atoll.algorithms.heads.fedncm import class_means, fedncm
from atoll.algorithms.heads.prototypes import prototypes
from atoll.core import Algorithm, Context, Reply, Request, State, validate
from atoll.errors import CompositionError
from atoll.local.bench import Bench
from atoll.local.statistics import Shapes, symmetric
from tests.support.heads import Rows, exchange, head_bench, labelled, rows_of, split

N, D, C = 90, 6, 4
PENALTY = 1e-2
X, Y = rows_of(N, D, C, seed=1, skew=0.5)
ONEHOT = np.eye(C)[Y]


def _bench(clients: Rows, *, bias: bool) -> Bench:
    return head_bench(D, C, bias=bias, clients=clients)


def _start(bias: bool) -> State:
    head = {"classifier.weight": torch.zeros(C, D)}
    return {"adapter": {}, "head": head | ({"classifier.bias": torch.zeros(C)} if bias else {})}


def _solve(
    make: Callable[[Bench, Any], Algorithm],
    owners: Any,
    *,
    bias: bool = True,
    after: Callable[[Bench, Any], Algorithm] | None = None,
    steps: int = 0,
) -> State:
    clients = split(X, Y, owners, bias=bias)
    bench = _bench(clients, bias=bias)
    state = exchange(make(bench, labelled(clients)), _start(bias), clients)
    if after is not None:
        refine = after(bench, labelled(clients))
        for _ in range(steps):
            state = exchange(refine, state, clients)
    return state


def _weight(state: State) -> np.ndarray:
    return state["head"]["classifier.weight"].double().numpy()


def _bias(state: State) -> np.ndarray:
    return state["head"]["classifier.bias"].double().numpy()


ONE = [0] * N
THREE = [0, 1, 1, 2, 1, 1] * (N // 6)


@pytest.mark.parametrize("penalty", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("bias", [False, True])
def test_fed3r_is_scikit_learns_ridge_on_all_rows(penalty: float, bias: bool) -> None:
    state = _solve(lambda bench, rows: fed3r(bench, rows, penalty=penalty), THREE, bias=bias)
    expected = Ridge(alpha=penalty, fit_intercept=bias).fit(X, ONEHOT)
    np.testing.assert_allclose(_weight(state), 10 * expected.coef_, rtol=1e-4, atol=1e-5)
    if bias:
        np.testing.assert_allclose(_bias(state), 10 * expected.intercept_, rtol=1e-4, atol=1e-5)


def _regression(x: np.ndarray, y: np.ndarray, *, bias: bool) -> Regression:
    """From sums as clients send them, in float64."""
    labels = int(y.max()) + 1
    rows = torch.from_numpy(np.c_[x, np.ones(len(x))] if bias else x)
    onehot = torch.from_numpy(np.eye(labels)[y])
    upper = torch.triu_indices(rows.shape[1], rows.shape[1])
    sums = {"gram": (rows.T @ rows)[upper[0], upper[1]], "sum": onehot.T @ rows,
            "count": onehot.sum(0)}  # fmt: skip
    return regression(sums, Shapes(labels, x.shape[1], bias))


def _cross_validated(x: np.ndarray, y: np.ndarray, penalty: float, bias: bool) -> float:
    """The hat matrix written out: ‖y − H·y‖² / n / (1 − tr(H)/n)²."""
    n, onehot = len(x), np.eye(int(y.max()) + 1)[y]
    means = np.full((n, n), 1 / n) if bias else np.zeros((n, n))
    centred = x - means @ x
    hat = centred @ np.linalg.inv(centred.T @ centred + penalty * np.eye(x.shape[1])) @ centred.T
    hat += means
    residual = onehot - hat @ onehot
    return float((residual**2).sum() / n / (1 - np.trace(hat) / n) ** 2)


@pytest.mark.parametrize("bias", [False, True])
def test_generalised_cross_validation(bias: bool) -> None:
    fit = _regression(X, Y, bias=bias)
    unit = float(fit.gram.diagonal().mean())
    errors = [_cross_validated(X, Y, penalty * unit, bias) for penalty in PENALTIES]
    found = [cross_validated(fit, penalty * unit) for penalty in PENALTIES]
    np.testing.assert_allclose(found, errors, rtol=1e-8)
    assert best_penalty(fit) == PENALTIES[int(np.argmin(errors))] * unit


@pytest.mark.parametrize(("noise", "seed"), [(0.0, 0), (1.0, 1), (8.0, 2)])
def test_the_penalty_is_a_minimum_of_the_cross_validated_error(noise: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(40, 10))
    labels = (x @ draw.normal(size=(10, 3)) + noise * 3 * draw.normal(size=(40, 3))).argmax(1)
    fit = _regression(x, labels, bias=False)
    tried = [penalty * float(fit.gram.diagonal().mean()) for penalty in PENALTIES]
    errors = [cross_validated(fit, penalty) for penalty in tried]
    chosen = tried.index(best_penalty(fit))
    assert errors[chosen] == min(errors[max(chosen - 1, 0) : chosen + 2])


def test_the_chosen_penalty_scales_with_the_features() -> None:
    small, large = _regression(X, Y, bias=True), _regression(1000 * X, Y, bias=True)
    assert best_penalty(large) == pytest.approx(1e6 * best_penalty(small), rel=1e-6)


HARD_ROWS = {
    "one row": (X[:1], Y[:1]),
    "one class": (X[Y == 1], Y[Y == 1]),
    "one vector a class, five times": (np.repeat(np.eye(C, D), 5, 0), np.repeat(np.arange(C), 5)),
    "fewer rows than features": (X[:3], np.arange(3)),
    "a feature that does not move": (np.c_[X[:, : D - 1], np.full(N, 7.0)], Y),
    "collinear and far from zero": (
        100 + 0.1 * np.repeat(3 * np.eye(C)[Y][:, :3] + 0.2 * X[:, :3], 2, 1), Y
    ),
}  # fmt: skip


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", HARD_ROWS)
@pytest.mark.parametrize("head", ["ridge", "lda", "means", "logistic"])
def test_rows_that_leave_sums_singular(head: str, name: str, scale: float) -> None:
    """The head is finite, and says of its own rows what the nearest class mean says, or better."""
    x, y = HARD_ROWS[name]
    x = scale * x
    clients = split(x, y, list(range(len(x)))[: len(x)], bias=True)
    bench = head_bench(D, C, bias=True, clients=clients)
    make = {"ridge": fed3r, "lda": fedlda, "means": fedncm, "logistic": fedlda}[head]
    state = exchange(make(bench, labelled(clients)), _start(True), clients)
    if head == "logistic":
        refine = fedlogistic(bench, labelled(clients), penalty=1e-5 * scale**2)
        for _ in range(5):
            state = exchange(refine, state, clients)
    assert all(torch.isfinite(v).all() for part in ("head", "prototypes")
               for v in state[part].values())  # fmt: skip
    means = {c: x[y == c].mean(0) for c in np.unique(y)}
    nearest = np.array([min(means, key=lambda c: np.linalg.norm(row - means[c])) for row in x])
    predicted = (x @ _weight(state).T + _bias(state)).argmax(1)
    if head != "means":
        assert (predicted == y).mean() >= (nearest == y).mean() - 0.1


def test_a_float64_model_keeps_a_float64_head() -> None:
    clients = split(X, Y, THREE, bias=True)
    start = _start(True)
    start["head"] = {name: value.double() for name, value in start["head"].items()}
    bench = _bench(clients, bias=True)
    state = exchange(fedlda(bench, labelled(clients)), start, clients)
    state = exchange(fedlogistic(bench, labelled(clients)), state, clients)
    for part in ("head", "prototypes"):
        assert {value.dtype for value in state[part].values()} == {torch.float64}


def test_a_client_that_misses_a_logistic_step_is_left_out_of_its_mean() -> None:
    clients = split(X, Y, THREE, bias=True)
    bench = _bench(clients, bias=True)
    state = exchange(fedlda(bench, labelled(clients)), _start(True), clients)
    few = {name: rows for name, rows in clients.items() if name != "client1"}
    step = exchange(fedlogistic(bench, labelled(clients), penalty=PENALTY), state, few)
    own = np.asarray(THREE) != 1
    rows, weight = np.c_[X, np.ones(N)], np.c_[_weight(state), _bias(state)]
    chances = np.exp(rows[own] @ weight.T)
    chances /= chances.sum(1, keepdims=True)
    gradient = (chances - ONEHOT[own]).T @ rows[own] / own.sum() + PENALTY * weight
    bound = 0.5 * rows.T @ rows / N + PENALTY * np.eye(D + 1)
    expected = weight - gradient @ np.linalg.inv(bound)
    np.testing.assert_allclose(_weight(step), expected[:, :D], rtol=1e-4, atol=1e-5)


def _lda(x: np.ndarray, y: np.ndarray, shrinkage: float) -> LinearDiscriminantAnalysis:
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y)


def _discriminant(x: np.ndarray, y: np.ndarray, shrinkage: float | None) -> Any:
    rows, onehot = torch.from_numpy(x), torch.from_numpy(np.eye(C)[y])
    return discriminant(rows.T @ rows, onehot.T @ rows, onehot.sum(0), shrinkage=shrinkage)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_discriminant_is_scikit_learns_with_uniform_priors(shrinkage: float) -> None:
    y = np.arange(N - N % C) % C  # balanced: there scikit-learn's priors weigh covariances alike
    x = X[: len(y)] + 2 * np.eye(C, D)[y]
    weight, bias = _discriminant(x, y, shrinkage)
    model = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / C] * C, shrinkage=shrinkage)
    model.fit(x, y)
    np.testing.assert_allclose(weight, model.coef_, rtol=1e-8)
    np.testing.assert_allclose(bias, model.intercept_ - np.log(1 / C), rtol=1e-8)
    assert ((x @ weight.numpy().T + bias.numpy()).argmax(1) == model.predict(x)).all()


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_discriminant_pools_the_covariance_by_rows(shrinkage: float) -> None:
    weight, bias = _discriminant(X, Y, shrinkage)
    model = _lda(X, Y, shrinkage)
    np.testing.assert_allclose(weight, model.coef_, rtol=1e-8)
    np.testing.assert_allclose(bias, model.intercept_ - np.log(model.priors_), rtol=1e-8)


@pytest.mark.parametrize("count", [12, 40, 400])
def test_oracle_shrinkage_is_scikit_learns(count: int) -> None:
    x = np.random.default_rng(count).normal(size=(count, D)) * np.arange(1, D + 1)
    covariance = torch.from_numpy(np.cov(x.T, bias=True))
    assert oracle_shrinkage(covariance, count) == pytest.approx(oas(x)[1], rel=1e-10)


def test_oracle_shrinkage_of_a_multiple_of_the_identity() -> None:
    assert oracle_shrinkage(2 * torch.eye(5, dtype=torch.float64), 10) == 1.0


@pytest.mark.parametrize("shrinkage", [None, 0.2])
def test_fedlda_is_scikit_learns_on_all_rows(shrinkage: float | None) -> None:
    state = _solve(lambda bench, rows: fedlda(bench, rows, shrinkage=shrinkage), THREE)
    centred = X - np.stack([X[y == Y].mean(0) for y in Y])
    share = oas(centred, assume_centered=True)[1] if shrinkage is None else shrinkage
    model = _lda(X, Y, share)
    np.testing.assert_allclose(_weight(state), model.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        _bias(state), model.intercept_ - np.log(model.priors_), rtol=1e-3, atol=1e-4
    )


def test_lda_without_a_bias_is_refused() -> None:
    clients = split(X, Y, ONE, bias=False)
    with pytest.raises(CompositionError, match=r"'lda' needs a bias.*'classifier' has not"):
        fedlda(_bench(clients, bias=False), labelled(clients))


def test_a_class_without_rows_is_never_predicted() -> None:
    onehot = torch.from_numpy(np.eye(C + 1)[Y])
    rows = torch.from_numpy(X)
    weight, bias = discriminant(rows.T @ rows, onehot.T @ rows, onehot.sum(0), shrinkage=0.1)
    assert torch.isfinite(weight).all()
    assert (rows @ weight.T + bias).argmax(1).max() < C
    sums = {"sum": onehot.T @ rows, "count": onehot.sum(0), "square": rows.square().sum()}
    held = prototypes("h", sums, Shapes(C + 1, D, True))
    assert (rows @ held["h.weight"].T + held["h.bias"]).argmax(1).max() < C


JITTER = np.tile([[1e-6], [-1e-6]], (C, D))  # scikit-learn wants some spread within a class


@pytest.mark.parametrize("bias", [False, True])
def test_fedncm_predicts_the_class_whose_mean_has_the_smallest_angle(bias: bool) -> None:
    state = _solve(fedncm, THREE, bias=bias)
    means = np.stack([X[c == Y].mean(0) for c in range(C)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(_weight(state), 16 * means, rtol=1e-5, atol=1e-5)
    if bias:
        assert not _bias(state).any()
    # On the unit sphere the smallest angle is the smallest distance.
    sphere = NearestCentroid().fit(np.repeat(means, 2, 0) + JITTER, np.repeat(np.arange(C), 2))
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert ((X @ _weight(state).T).argmax(1) == sphere.predict(unit)).all()
    assert torch.equal(class_means(torch.tensor([[0.0, 0], [3, 4]])),
                       torch.tensor([[0, 0], [0.6, 0.8]], dtype=torch.float64))  # fmt: skip


def test_prototypes_are_centred_class_means() -> None:
    state = _solve(fedncm, THREE)
    centre = X.mean(0)
    shifted = np.stack([X[c == Y].mean(0) for c in range(C)]) - centre
    weight = 16 * shifted / np.linalg.norm(shifted, axis=1, keepdims=True)
    weight /= np.sqrt((X**2).sum(1).mean())
    held = state["prototypes"]
    np.testing.assert_allclose(held["classifier.weight"], weight, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(held["classifier.bias"], -weight @ centre, rtol=1e-4, atol=1e-4)
    same = _solve(fed3r, THREE)["prototypes"]
    np.testing.assert_allclose(same["classifier.weight"], weight, rtol=1e-4, atol=1e-4)


def test_prototypes_do_not_depend_on_the_models_scale() -> None:
    onehot = torch.from_numpy(np.eye(C)[Y])
    logits = []
    for factor in (1.0, 40.0):
        rows = factor * torch.from_numpy(X)
        sums = {"sum": onehot.T @ rows, "count": onehot.sum(0), "square": rows.square().sum()}
        held = prototypes("h", sums, Shapes(C, D, True))
        logits.append(rows @ held["h.weight"].T + held["h.bias"])
    torch.testing.assert_close(logits[1], logits[0])


def _logistic_loss(weight: np.ndarray, bias: np.ndarray) -> float:
    logits = X @ weight.T + bias
    logits -= logits.max(1, keepdims=True)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(N), Y]
    return float(loss.mean() + PENALTY / 2 * ((weight**2).sum() + (bias**2).sum()))


def _nesterov(weight: np.ndarray) -> Iterator[np.ndarray]:
    """FISTA in the metric of the bound, on all rows at once."""
    rows = np.c_[X, np.ones(N)]
    bound = np.linalg.inv(0.5 * rows.T @ rows / N + PENALTY * np.eye(D + 1))
    ahead, pace = weight, 1.0
    while True:
        chances = np.exp(rows @ ahead.T)
        chances /= chances.sum(1, keepdims=True)
        gradient = (chances - ONEHOT).T @ rows / N + PENALTY * ahead
        new, following = ahead - gradient @ bound, (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead = new + (pace - 1) / following * (new - weight)
        weight, pace = new, following
        yield weight


def test_logistic_regression_reaches_the_pooled_optimum() -> None:
    clients = split(X, Y, THREE, bias=True)
    bench = _bench(clients, bias=True)
    refine = fedlogistic(bench, labelled(clients), penalty=PENALTY)
    state = exchange(fedlda(bench, labelled(clients)), _start(True), clients)
    losses = [_logistic_loss(_weight(state), _bias(state))]
    plain = _nesterov(np.c_[_weight(state), _bias(state)])
    for _ in range(240):
        state = exchange(refine, state, clients)
        losses.append(_logistic_loss(_weight(state), _bias(state)))
        expected = next(plain)
        assert losses[-1] == pytest.approx(
            _logistic_loss(expected[:, :D], expected[:, D]), rel=1e-4
        )
    # The same objective in scikit-learn: the bias is a feature, penalised like the others.
    model = LogisticRegression(C=1 / (N * PENALTY), fit_intercept=False, max_iter=10_000, tol=1e-10)
    model.fit(np.c_[X, np.ones(N)], Y)
    best = _logistic_loss(model.coef_[:, :D], model.coef_[:, D])
    assert losses[0] > best + 0.01, "the start is already the optimum"
    assert losses[-1] == pytest.approx(best, abs=1e-4)
    assert min(losses) > best - 1e-6
    # Nesterov's steps may ripple near the end, not on the way down.
    far = [loss for loss in losses if loss > best + 0.05]
    assert len(far) > 10
    assert far == sorted(far, reverse=True)


def test_the_first_logistic_step_is_one_step_down_the_bound() -> None:
    state = _solve(fedlda, THREE)
    weight = np.c_[_weight(state), _bias(state)]
    rows = np.c_[X, np.ones(N)]
    chances = np.exp(rows @ weight.T)
    chances /= chances.sum(1, keepdims=True)
    gradient = (chances - ONEHOT).T @ rows / N + PENALTY * weight
    bound = 0.5 * rows.T @ rows / N + PENALTY * np.eye(D + 1)
    expected = weight - gradient @ np.linalg.inv(bound)
    step = _solve(fedlda, THREE, steps=1,
                  after=lambda bench, rows: fedlogistic(bench, rows, penalty=PENALTY))  # fmt: skip
    np.testing.assert_allclose(_weight(step), expected[:, :D], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(_bias(step), expected[:, D], rtol=1e-4, atol=1e-5)


def test_new_statistics_start_the_sequence_again() -> None:
    clients = split(X, Y, THREE, bias=True)
    bench = _bench(clients, bias=True)
    refine = fedlogistic(bench, labelled(clients), penalty=PENALTY)
    fresh = _solve(fedlda, THREE)
    once = exchange(refine, fresh, clients)
    worn = fresh
    for _ in range(5):
        worn = exchange(refine, worn, clients)
    moved = {**fresh["statistics"], "sum": fresh["statistics"]["sum"] + 1.0}
    again = exchange(refine, {**worn, "head": fresh["head"], "statistics": moved}, clients)
    assert float(again["solver"]["pace"]) == float(once["solver"]["pace"])
    np.testing.assert_allclose(_weight(again), _weight(once), rtol=1e-6)


SPLITS: dict[str, dict[str, Any]] = {
    "means": {"make": fedncm},
    "ridge": {"make": lambda bench, rows: fed3r(bench, rows, penalty=1.0)},
    "ridge-chosen": {"make": fed3r},
    "lda": {"make": fedlda},
    "logistic": {
        "make": fedlda,
        "after": lambda bench, rows: fedlogistic(bench, rows, penalty=PENALTY),
        "steps": 5,
    },
}
POOLED = {name: _solve(owners=ONE, **how) for name, how in SPLITS.items()}


@pytest.mark.parametrize("name", SPLITS)
@hypothesis(max_examples=20, deadline=None)
@given(owners=st.lists(st.integers(0, 6), min_size=N, max_size=N))
def test_every_split_of_the_rows_gives_the_same_head(name: str, owners: list[int]) -> None:
    state, pooled = _solve(owners=owners, **SPLITS[name]), POOLED[name]
    for part in ("head", "prototypes"):
        assert state[part].keys() == pooled[part].keys()
        for key, value in pooled[part].items():
            size = float(value.abs().max())
            torch.testing.assert_close(state[part][key], value, rtol=1e-5, atol=1e-5 * size)


def test_one_row_a_client_and_one_label_a_client() -> None:
    for owners in (list(range(N)), Y.tolist()):
        for name, how in SPLITS.items():
            found, pooled = _solve(owners=owners, **how), POOLED[name]
            np.testing.assert_allclose(_weight(found), _weight(pooled), rtol=1e-4, atol=1e-4)


def test_statistics_are_sums_of_the_declared_shapes() -> None:
    clients = split(X, Y, THREE, bias=True)
    bench = _bench(clients, bias=True)
    state = _start(True)
    for make in (fedncm, fed3r, fedlda):
        algorithm = make(bench, labelled(clients))
        assert algorithm.kind == "exchange"
        context = Context(0, "run", 0, 0, tuple(clients), len(clients), "client1")
        request = Request(context, algorithm.server.broadcast(state, "client1"))
        (reply,) = algorithm.client.work([request])
        assert isinstance(reply, Reply)
        assert all(channel.reduce == "sum" for channel in reply.payload.values())
        validate(reply.payload, algorithm.client.template(request.payload))


def test_a_triangle_unfolds() -> None:
    matrix = torch.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]], dtype=torch.float64)
    assert torch.equal(symmetric(torch.tensor([1.0, 2, 3, 4, 5, 6]), 3), matrix)


def _with_an_absent_class() -> tuple[Rows, Bench, State]:
    clients = split(X, Y, THREE, bias=True)
    bench = head_bench(D, C + 1, bias=True, clients=clients)
    start: State = {"adapter": {}, "head": {"classifier.weight": torch.zeros(C + 1, D),
                                            "classifier.bias": torch.zeros(C + 1)}}  # fmt: skip
    return clients, bench, start


def test_a_class_without_rows_keeps_its_place_through_logistic_steps() -> None:
    clients, bench, start = _with_an_absent_class()
    state = exchange(fedlda(bench, labelled(clients)), start, clients)
    for _ in range(6):
        state = exchange(fedlogistic(bench, labelled(clients)), state, clients)
    assert not state["head"]["classifier.weight"][C].any()
    assert float(state["head"]["classifier.bias"][C]) == -1e9
    assert (X @ _weight(state).T + _bias(state)).argmax(1).max() < C


def test_means_of_a_class_without_rows_are_never_predicted() -> None:
    clients, bench, start = _with_an_absent_class()
    state = exchange(fedncm(bench, labelled(clients)), start, clients)
    against = -X.sum(0, keepdims=True)
    assert (against @ _weight(state).T + _bias(state)).argmax(1) < C
