"""One norm over everything, never exceeded, and nothing changed below it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core import Channel, Context, Payload, Tree
from atoll.errors import ConfigError, PayloadError
from atoll.stages import clip

CONTEXT = Context(0, "run", 1, 3, ("ada",), 9, client="ada")
floats = st.floats(-(2.0**66), 2.0**66, width=32, allow_subnormal=False)


def _clip(tree: Tree, norm: float) -> Tree:
    encoded, state = clip(norm=norm).encode(CONTEXT, {"update": Channel(tree)}, {})
    assert state == {}
    assert encoded["update"].l2 == norm
    return encoded["update"].tree


def _norm(*trees: Tree) -> float:
    values = [value.double().numpy().ravel() for tree in trees for value in tree.values()]
    return float(np.linalg.norm(np.concatenate(values)))


def test_against_the_formula_with_one_norm_for_the_tree() -> None:
    tree = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    clipped = _clip(tree, 1.0)
    torch.testing.assert_close(clipped["a"], torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(clipped["b"], torch.tensor([[0.8]]))
    assert torch.equal(tree["a"], torch.tensor([3.0, 0.0]))


@pytest.mark.parametrize("norm", [5.0, 6.0])
def test_within_the_bound_nothing_changes(norm: float) -> None:
    tree = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    clipped = _clip(tree, norm)
    assert all(torch.equal(clipped[name], tree[name]) for name in tree)


@given(
    st.lists(floats, min_size=1, max_size=20),
    st.floats(1e-3, 1e3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
@settings(max_examples=200, deadline=None)
def test_the_norm_is_never_above_the_bound(
    values: list[float], norm: float, dtype: torch.dtype
) -> None:
    tree = {"a": torch.tensor(values, dtype=dtype), "b": torch.tensor(values[:1], dtype=dtype)}
    met, clipped = _norm(tree), _clip(tree, norm)
    assert _norm(clipped) <= norm * (1 + 1e-12)
    precision = 4 * torch.finfo(dtype).eps
    assert _norm(clipped) >= min(met, norm) * (1 - precision)
    for name, value in tree.items():
        expected = value.double() * min(1.0, norm / met if met else 1.0)
        torch.testing.assert_close(clipped[name].double(), expected, rtol=precision, atol=1e-37)


def test_the_bound_is_kept_where_precision_is_poor() -> None:
    tree = {"a": torch.full((50_000,), 1e-4, dtype=torch.float16)}
    assert _norm(_clip(tree, 3e-4)) <= 3e-4


def test_zeros_and_an_empty_tree() -> None:
    assert torch.equal(_clip({"a": torch.zeros(3)}, 1.0)["a"], torch.zeros(3))
    assert _clip({}, 1.0) == {}


def test_channels_share_one_norm() -> None:
    payload = {
        "update": Channel({"a": torch.tensor([3.0])}, weight="weight"),
        "control": Channel({"a": torch.tensor([4.0])}, reduce="sum"),
        "metrics": Channel({"loss": torch.tensor(100.0)}),
    }
    stage = clip(norm=1.0, channels=["update", "control"])
    encoded, _ = stage.encode(CONTEXT, payload, {})
    torch.testing.assert_close(encoded["update"].tree["a"], torch.tensor([0.6]))
    torch.testing.assert_close(encoded["control"].tree["a"], torch.tensor([0.8]))
    assert (encoded["update"].weight, encoded["control"].reduce) == ("weight", "sum")
    assert (encoded["update"].l2, encoded["control"].l2) == (1.0, 1.0)
    assert encoded["metrics"] is payload["metrics"]
    assert stage.channels == ("update", "control")


def test_the_declared_bound_is_the_smaller_one() -> None:
    payload: Payload = {"update": Channel({"a": torch.ones(1)}, l2=1.5)}
    assert clip(norm=2.0).encode(CONTEXT, payload, {})[0]["update"].l2 == 1.5
    assert [clip(norm=2.0).bound(met) for met in (None, 3.0, 1.5)] == [2.0, 2.0, 1.5]


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [
        (torch.float16, 65_504.0), (torch.bfloat16, 3e38), (torch.float32, 1e30),
        (torch.float32, 3.4e38), (torch.float64, 1e150),
    ],
)  # fmt: skip
@pytest.mark.parametrize("share", [(1.0, 1.0, -1.0), (1.0, 1e-4, 0.0), (-1.0,)])
def test_the_largest_values_are_bounded_too(
    dtype: torch.dtype, largest: float, share: tuple[float, ...]
) -> None:
    clipped = _clip({"a": torch.tensor(share, dtype=dtype) * largest}, 0.1)
    assert 0.09 <= _norm(clipped) <= 0.1


def test_a_norm_that_no_float64_holds_is_refused() -> None:
    with pytest.raises(PayloadError, match="not finite"):
        _clip({"a": torch.tensor([1e300, 0.0], dtype=torch.float64)}, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_cannot_be_bounded(value: float) -> None:
    with pytest.raises(PayloadError) as caught:
        _clip({"a": torch.tensor([1.0, value])}, 1.0)
    assert str(caught.value) == (
        "channels update hold values that are not finite, which no clipping can bound"
    )


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf])
def test_a_bound_is_above_zero(norm: float) -> None:
    with pytest.raises(ConfigError) as caught:
        clip(norm=norm)
    assert str(caught.value) == f"stage 'clip': norm is {norm}; give a number above 0"


def test_decoding_changes_nothing() -> None:
    payload = {"update": Channel({"a": torch.ones(1)})}
    assert clip(norm=1.0).decode(CONTEXT, payload, payload) is payload
    assert clip(norm=1.0).dense_floats
    assert not clip(norm=1.0).packs
