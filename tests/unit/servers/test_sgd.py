"""The average and momentum, against torch.optim.SGD on the negative update."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from atoll.core import Channel, Context, Payload, Server, State, Tree
from atoll.errors import ConfigError
from atoll.servers import adam, average, momentum

CONTEXT = Context(0, "run", 1, 3, ("ada",), 9)


def _state() -> State:
    generator = torch.Generator().manual_seed(0)
    return {
        "adapter": {"a": torch.randn(2, 3, generator=generator)},
        "head": {"h.weight": torch.randn(4, generator=generator)},
        "statistics": {"gram": torch.ones(2)},
    }


def _aggregate(seed: int, *names: str) -> Payload:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (2, 3), "h.weight": (4,)}
    update = {name: torch.randn(shapes[name], generator=generator) for name in names or shapes}
    return {"update": Channel(update), "examples": Channel({"count": torch.ones(())}, "sum")}


def _values(state: State) -> Tree:
    return {**state["adapter"], **state["head"]}


def test_the_average_is_a_sum() -> None:
    before, update = _state(), _aggregate(1)["update"].tree
    for server, rate in ((average(), 1.0), (average(learning_rate=0.3), 0.3)):
        state = server.init(before)
        after = _values(server.apply(CONTEXT, state, _aggregate(1)))
        for name, value in _values(before).items():
            expected = value + rate * update[name]
            torch.testing.assert_close(after[name], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "server",
    [
        average(learning_rate=0.3),
        momentum(learning_rate=0.7, momentum=0.9),
        momentum(learning_rate=0.7, momentum=0.9, nesterov=True),
    ],
)
def test_a_response_is_how_far_one_update_moves_the_values(server: Server) -> None:
    state, zero = server.init(_state()), _aggregate(1)["update"].tree
    start, update = _values(_state())["h.weight"], _aggregate(1)["update"].tree["h.weight"]
    assert server.response is not None
    for age, response in enumerate(server.response(6)):
        tree = {name: value if age == 0 else 0 * value for name, value in zero.items()}
        state = server.apply(CONTEXT, state, {"update": Channel(tree)})
        moved = _values(state)["h.weight"] - start
        torch.testing.assert_close(moved, response * update, rtol=1e-5, atol=1e-6)


def test_an_adaptive_step_has_no_response() -> None:
    assert adam().response is None


@pytest.mark.parametrize(("mu", "nesterov"), [(0.0, False), (0.9, False), (0.9, True), (0.5, True)])
def test_momentum_against_torch(mu: float, nesterov: bool) -> None:
    server = momentum(learning_rate=0.7, momentum=mu, nesterov=nesterov)
    state = server.init(_state())
    params = {name: value.clone().requires_grad_() for name, value in _values(state).items()}
    reference = torch.optim.SGD(params.values(), lr=0.7, momentum=mu, nesterov=nesterov)
    for step in range(6):
        aggregate = _aggregate(step)
        for name, param in params.items():
            param.grad = -aggregate["update"].tree[name]
        reference.step()
        state = server.apply(CONTEXT, state, aggregate)
        for name, value in _values(state).items():
            torch.testing.assert_close(value, params[name].detach(), rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize(("mu", "nesterov"), [(0.9, False), (0.9, True)])
def test_momentum_against_torch_to_the_last_digits(mu: float, nesterov: bool) -> None:
    server = momentum(learning_rate=0.7, momentum=mu, nesterov=nesterov)
    start = torch.linspace(-1, 1, 5, dtype=torch.float64)
    state, param = server.init({"adapter": {"a": start}}), start.clone().requires_grad_()
    reference = torch.optim.SGD([param], lr=0.7, momentum=mu, nesterov=nesterov)
    for step in range(6):
        delta = torch.cos(start * step)
        param.grad = -delta
        reference.step()
        state = server.apply(CONTEXT, state, {"update": Channel({"a": delta})})
        torch.testing.assert_close(state["adapter"]["a"], param.detach(), rtol=0, atol=1e-14)


def test_an_empty_cohort_moves_by_what_momentum_is_left() -> None:
    def zeros() -> Payload:
        return {"update": Channel({"a": torch.zeros(2, 3)})}

    fresh = average().apply(CONTEXT, _state(), zeros())
    assert torch.equal(fresh["adapter"]["a"], _state()["adapter"]["a"])
    server = momentum(learning_rate=1.0, momentum=0.5)
    still = server.apply(CONTEXT, server.init(_state()), zeros())
    assert torch.equal(still["adapter"]["a"], _state()["adapter"]["a"])
    moving = server.apply(CONTEXT, server.init(_state()), _aggregate(1))
    after = server.apply(CONTEXT, moving, zeros())
    expected = moving["adapter"]["a"] + 0.5 * _aggregate(1)["update"].tree["a"]
    torch.testing.assert_close(after["adapter"]["a"], expected)


SERVERS: list[Callable[[], Server]] = [average, momentum, adam]


@pytest.mark.parametrize("make", SERVERS)
@pytest.mark.parametrize("name", ["a", "h.weight"])
def test_names_outside_the_update_are_held(make: Callable[[], Server], name: str) -> None:
    server = make()
    state = server.apply(CONTEXT, server.init(_state()), _aggregate(1))
    after = server.apply(CONTEXT, state, _aggregate(2, name))
    for part, tree in after.items():
        for key, value in tree.items():
            fixed = key != name or part == "statistics"
            assert torch.equal(value, state[part][key]) == fixed


@pytest.mark.parametrize("make", SERVERS)
def test_the_state_that_goes_in_is_not_changed(make: Callable[[], Server]) -> None:
    server, given, aggregate = make(), _state(), _aggregate(1)
    state = server.init(given)
    assert given.keys() == {"adapter", "head", "statistics"}
    copy = {part: {k: v.clone() for k, v in tree.items()} for part, tree in state.items()}
    after = server.apply(CONTEXT, state, aggregate)
    assert after["statistics"] is given["statistics"]
    assert after.keys() == state.keys()
    for part, tree in state.items():
        torch.testing.assert_close(tree, copy[part], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("server", "part"),
    [(average(learning_rate=0.5), "adapter"), (momentum(), "moments"), (adam(), "moments")],
)
def test_the_update_is_used_up(server: Server, part: str) -> None:
    """What is as large as the model is not made anew where the update's memory is free."""
    aggregate = _aggregate(1)
    after = server.apply(CONTEXT, server.init(_state()), aggregate)
    assert after[part]["a"].data_ptr() == aggregate["update"].tree["a"].data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_precision_than_the_update_s_is_kept(dtype: torch.dtype) -> None:
    value, delta = torch.linspace(-1, 1, 5).to(dtype), torch.linspace(1, 3, 5) / 3
    state = average().apply(
        CONTEXT, {"adapter": {"a": value}}, {"update": Channel({"a": delta.clone()})}
    )
    assert torch.equal(state["adapter"]["a"], (value + delta).to(dtype))


@pytest.mark.parametrize("delta", [torch.ones(()).expand(5), torch.arange(5)])
def test_an_update_that_cannot_hold_a_step_is_left_alone(delta: Tensor) -> None:
    """One number that stands for all of them, or whole numbers."""
    value, before = torch.linspace(-1, 1, 5), delta.clone()
    for server in (average(learning_rate=0.5), momentum(learning_rate=0.5)):
        state = server.init({"adapter": {"a": value}})
        after = server.apply(CONTEXT, state, {"update": Channel({"a": delta})})
        torch.testing.assert_close(after["adapter"]["a"], value + 0.5 * before)
        assert torch.equal(delta, before)


@pytest.mark.parametrize("make", SERVERS)
def test_broadcast_is_the_values_and_nothing_else(make: Callable[[], Server]) -> None:
    server = make()
    state = server.init(_state())
    sent = server.broadcast(state, "ada")
    assert {name: channel.tree for name, channel in sent.items()} == {
        "adapter": state["adapter"], "head": state["head"],
    }  # fmt: skip
    del state["head"]
    assert server.broadcast(state, "ada").keys() == {"adapter"}
    assert server.broadcast({}, "ada") == {}


def test_init_keeps_moments_and_adds_those_of_a_new_head() -> None:
    server = momentum()
    state = server.init({"adapter": _state()["adapter"]})
    assert state["moments"].keys() == {"a"}
    state = server.apply(CONTEXT, state, _aggregate(1, "a"))
    assert server.init(state) is state
    joined = server.apply(CONTEXT, {**state, "head": _state()["head"]}, _aggregate(2, "h.weight"))
    assert torch.equal(joined["moments"]["a"], state["moments"]["a"])
    expected = _aggregate(2, "h.weight")["update"].tree["h.weight"]
    assert torch.equal(joined["moments"]["h.weight"], expected)


@pytest.mark.parametrize("make", SERVERS)
def test_values_keep_their_dtype(make: Callable[[], Server]) -> None:
    server = make()
    state = server.init({"adapter": {"a": torch.ones(3, dtype=torch.bfloat16)}})
    after = server.apply(CONTEXT, state, {"update": Channel({"a": torch.ones(3)})})
    assert after["adapter"]["a"].dtype == torch.bfloat16
    assert all(v.dtype == torch.float32 for p in after if p != "adapter" for v in after[p].values())


def test_an_update_that_nobody_holds_is_a_bug() -> None:
    with pytest.raises(AssertionError, match=r"no part holds \['x'\]"):
        average().apply(CONTEXT, _state(), {"update": Channel({"x": torch.ones(1)})})


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_learning_rates_are_above_zero(rate: float) -> None:
    for make in (average, momentum):
        with pytest.raises(ConfigError) as caught:
            make(learning_rate=rate)
        assert str(caught.value) == (
            f"server '{make.__name__}': learning_rate is {rate}; give a number above 0"
        )


@pytest.mark.parametrize("mu", [-0.1, 1.0, math.nan])
def test_momentum_is_below_one(mu: float) -> None:
    with pytest.raises(ConfigError) as caught:
        momentum(momentum=mu)
    assert str(caught.value) == (
        f"server 'momentum': momentum is {mu}; give a number from 0 to below 1"
    )


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ConfigError, match=r"which is 0; give a momentum above 0"):
        momentum(momentum=0.0, nesterov=True)
