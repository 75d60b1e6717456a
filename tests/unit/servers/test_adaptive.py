"""Adam, Yogi and Adagrad against Algorithm 2 of Reddi et al., number by number."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from atoll.core import Channel, Context, Server
from atoll.errors import ConfigError
from atoll.servers import adagrad, adam, yogi

CONTEXT = Context(0, "run", 1, 3, ("ada",), 9)
ETA, BETA1, BETA2, TAU = 0.3, 0.8, 0.95, 1e-2


def _adagrad(v: float, d: float) -> float:
    return v + d**2


def _yogi(v: float, d: float) -> float:
    return v - (1 - BETA2) * d**2 * float(np.sign(v - d**2))


def _adam(v: float, d: float) -> float:
    return BETA2 * v + (1 - BETA2) * d**2


RULES = [
    (adagrad(learning_rate=ETA, beta1=BETA1, tau=TAU), _adagrad),
    (yogi(learning_rate=ETA, beta1=BETA1, beta2=BETA2, tau=TAU), _yogi),
    (adam(learning_rate=ETA, beta1=BETA1, beta2=BETA2, tau=TAU), _adam),
]
BY_NAME = [pytest.param(*rule, id=rule[0].name) for rule in RULES]


@pytest.mark.parametrize(("server", "second"), BY_NAME)
def test_against_algorithm_2(server: Server, second: Callable[[float, float], float]) -> None:
    deltas = np.random.default_rng(0).normal(size=(8, 5)) * np.array([1, 0.1, 0.01, 0.001, 0])
    w, m, v = [0.5] * 5, [0.0] * 5, [TAU**2] * 5
    state = server.init({"adapter": {"a": torch.full((5,), 0.5, dtype=torch.float64)}})
    for delta in deltas.tolist():
        for i, d in enumerate(delta):
            m[i] = BETA1 * m[i] + (1 - BETA1) * d
            v[i] = second(v[i], d)
            w[i] += ETA * m[i] / (math.sqrt(v[i]) + TAU)
        update = {"a": torch.tensor(delta, dtype=torch.float64)}
        state = server.apply(CONTEXT, state, {"update": Channel(update)})
        np.testing.assert_allclose(state["adapter"]["a"].numpy(), w, rtol=1e-12)
        np.testing.assert_allclose(state["moments"]["a"].numpy(), m, rtol=1e-12)
        np.testing.assert_allclose(state["squares"]["a"].numpy(), v, rtol=1e-12)
    assert w[4] == 0.5


def test_adagrad_without_first_moment_is_that_of_torch() -> None:
    server = adagrad(learning_rate=ETA, tau=TAU)
    state = server.init({"adapter": {"a": torch.linspace(-1, 1, 5)}})
    param = state["adapter"]["a"].clone().requires_grad_()
    reference = torch.optim.Adagrad([param], lr=ETA, initial_accumulator_value=TAU**2, eps=TAU)
    for step in range(6):
        delta = torch.cos(torch.arange(5.0) * step)
        param.grad = -delta
        reference.step()
        state = server.apply(CONTEXT, state, {"update": Channel({"a": delta})})
        torch.testing.assert_close(state["adapter"]["a"], param.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("server", "second"), BY_NAME)
def test_v_starts_at_tau_squared_and_m_at_zero(
    server: Server, second: Callable[[float, float], float]
) -> None:
    given = {"adapter": {"a": torch.ones(2)}, "head": {"h": torch.ones(())}}
    state = server.init(given)
    assert given.keys() == {"adapter", "head"}
    for name in ("a", "h"):
        assert bool((state["moments"][name] == 0).all())
        torch.testing.assert_close(
            state["squares"][name], torch.full_like(state["moments"][name], TAU**2)
        )
    assert server.init(state) is state


@pytest.mark.parametrize(("server", "second"), BY_NAME)
def test_an_empty_cohort_moves_nothing_until_there_is_momentum(
    server: Server, second: Callable[[float, float], float]
) -> None:
    zeros = {"update": Channel({"a": torch.zeros(2)})}
    state = server.init({"adapter": {"a": torch.ones(2)}})
    still = server.apply(CONTEXT, state, zeros)
    assert torch.equal(still["adapter"]["a"], torch.ones(2))
    moving = server.apply(CONTEXT, state, {"update": Channel({"a": torch.ones(2)})})
    after = server.apply(CONTEXT, moving, zeros)
    assert bool((after["adapter"]["a"] > moving["adapter"]["a"]).all())


@pytest.mark.parametrize(("server", "second"), BY_NAME)
def test_v_stays_positive(server: Server, second: Callable[[float, float], float]) -> None:
    state = server.init({"adapter": {"a": torch.zeros(3)}})
    for size in (1e-6, 1e3, 0.0, 1e-3, 1e6, 1.0):
        delta = {"a": torch.tensor([size, -size, 0.0])}
        state = server.apply(CONTEXT, state, {"update": Channel(delta)})
        assert bool((state["squares"]["a"] > 0).all())
        assert bool(torch.isfinite(state["adapter"]["a"]).all())


@pytest.mark.parametrize("make", [adagrad, adam, yogi])
def test_arguments_out_of_range(make: Callable[..., Server]) -> None:
    name = make.__name__
    for argument in ("learning_rate", "tau"):
        for value in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ConfigError) as caught:
                make(**{argument: value})
            assert str(caught.value) == (
                f"server '{name}': {argument} is {value}; give a number above 0"
            )
    for argument in ("beta1",) if make is adagrad else ("beta1", "beta2"):
        for value in (-0.1, 1.0, math.nan):
            with pytest.raises(ConfigError) as caught:
                make(**{argument: value})
            assert str(caught.value) == (
                f"server '{name}': {argument} is {value}; give a number from 0 to below 1"
            )
