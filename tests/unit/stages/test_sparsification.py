"""The largest values travel, the others wait: nothing is lost between rounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core import Channel, Context, Payload, Tree, payload_nbytes, validate
from atoll.errors import ConfigError
from atoll.stages import quantise, top_k

CONTEXT = Context(0, "run", 1, 3, ("ada",), 9, client="ada")
floats = st.floats(-1e3, 1e3, width=32)


def _payload(tree: Tree) -> Payload:
    return {"update": Channel(tree, weight="weight", l2=1.0)}


def _sent(tree: Tree, memory: Tree, fraction: float) -> tuple[Tree, Tree]:
    stage = top_k(fraction=fraction)
    encoded, state = stage.encode(CONTEXT, _payload(tree), memory)
    meta = {name: value.to("meta") for name, value in tree.items()}
    return stage.decode(CONTEXT, encoded, _payload(meta))["update"].tree, state


def test_against_the_largest_magnitudes() -> None:
    value = torch.tensor([[0.5, -4.0, 1.0], [3.0, -0.25, 0.0]])
    dense, memory = _sent({"a": value}, {}, 1 / 3)
    assert torch.equal(dense["a"], torch.tensor([[0.0, -4.0, 0.0], [3.0, 0.0, 0.0]]))
    assert torch.equal(memory["a"], torch.tensor([[0.5, 0.0, 1.0], [0.0, -0.25, 0.0]]))


@given(st.lists(st.lists(floats, min_size=7, max_size=7), min_size=1, max_size=6))
@settings(deadline=None)
def test_what_was_sent_and_what_waits_is_what_was_trained(rounds: list[list[float]]) -> None:
    memory: Tree = {}
    for values in rounds:
        tree = {"a": torch.tensor(values)}
        whole = tree["a"] + memory.get("a", torch.zeros(7))
        dense, memory = _sent(tree, memory, 0.3)
        assert torch.equal(dense["a"] + memory["a"], whole)
        assert int((dense["a"] != 0).sum()) <= 2
        smallest = np.sort(np.abs(whole.numpy()))[-2]
        assert bool((memory["a"].abs() <= float(smallest)).all())


def test_a_small_value_travels_once_it_has_grown() -> None:
    memory: Tree = {}
    total = torch.zeros(2)
    for _ in range(10):
        dense, memory = _sent({"a": torch.tensor([1.0, 0.3])}, memory, 0.5)
        total += dense["a"]
    torch.testing.assert_close(total + memory["a"], torch.tensor([10.0, 3.0]))
    assert total[1] > 0


@pytest.mark.parametrize(
    ("size", "fraction", "count"), [(10, 0.25, 2), (10, 0.01, 1), (3, 1.0, 3), (0, 0.5, 0)]
)
def test_how_many_travel(size: int, fraction: float, count: int) -> None:
    stage = top_k(fraction=fraction)
    tree = {"a": torch.arange(1.0, size + 1), "scalar": torch.tensor(2.0)}
    encoded, _ = stage.encode(CONTEXT, _payload(tree), {})
    packed = encoded["update"].tree
    assert packed["a"].shape == packed["a:indices"].shape == (count,)
    assert packed["a:indices"].dtype == torch.int32
    assert packed["scalar"].shape == (1,)
    assert payload_nbytes(encoded) == (count + 1) * 8
    decoded = stage.decode(CONTEXT, encoded, _payload(tree))
    validate({"update": replace(decoded["update"], weight=None)}, {"update": Channel(tree)})


def test_the_whole_tensor_comes_back_with_fraction_one() -> None:
    value = torch.randn(3, 4, dtype=torch.float64).T
    dense, memory = _sent({"a": value}, {}, 1.0)
    assert torch.equal(dense["a"], value)
    assert torch.equal(memory["a"], torch.zeros_like(value))


def test_inputs_are_not_changed() -> None:
    tree, memory = {"a": torch.ones(4)}, {"a": torch.full((4,), 0.5)}
    payload = {**_payload(tree), "metrics": Channel({"loss": torch.tensor(1.0)})}
    encoded, new = top_k(fraction=0.5).encode(CONTEXT, payload, memory)
    new["a"].zero_()
    encoded["update"].tree["a"].zero_()
    assert torch.equal(payload["update"].tree["a"], torch.ones(4))
    assert torch.equal(memory["a"], torch.full((4,), 0.5))
    assert encoded["metrics"] is payload["metrics"]
    assert encoded["update"].l2 is None


def test_a_memory_of_another_model_is_left_behind() -> None:
    dense, memory = _sent({"a": torch.ones(4)}, {"a": torch.ones(5), "b": torch.ones(2)}, 1.0)
    assert torch.equal(dense["a"], torch.ones(4))
    assert memory.keys() == {"a"}


def test_quantising_afterwards_rounds_values_and_keeps_places() -> None:
    value = torch.randn(40, generator=torch.Generator().manual_seed(1))
    first, second = top_k(fraction=0.25), quantise(dtype="int8")
    sparse, memory = first.encode(CONTEXT, _payload({"a": value}), {})
    encoded, _ = second.encode(CONTEXT, sparse, {})
    assert payload_nbytes(encoded) == 10 * (1 + 4) + 4
    like = _payload({"a": value.to("meta")})
    decoded = first.decode(CONTEXT, second.decode(CONTEXT, encoded, like), like)["update"].tree["a"]
    wanted = value - memory["a"]
    assert torch.equal(decoded != 0, wanted != 0)
    torch.testing.assert_close(decoded, wanted, rtol=0, atol=float(value.abs().max()) / 127)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_a_fraction_is_above_zero_and_at_most_one(fraction: float) -> None:
    with pytest.raises(ConfigError) as caught:
        top_k(fraction=fraction)
    assert str(caught.value) == (
        f"stage 'top_k': fraction is {fraction}; give a number above 0, at most 1"
    )


def test_facts() -> None:
    stage = top_k(fraction=0.5)
    assert stage.packs
    assert stage.dense_floats
    assert stage.data_support
    assert not stage.lossy
    assert stage.bound(1.0) is None
