"""Rounding to one of two neighbours, right on average, and refusals of what was made up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core import Channel, Context, Payload, Tree, payload_nbytes
from atoll.errors import ConfigError, PayloadError
from atoll.stages import quantise

CONTEXT = Context(0, "run", 1, 3, ("ada",), 9, client="ada")
DTYPES: list[Literal["int8", "bfloat16"]] = ["int8", "bfloat16"]
floats = st.floats(-(2.0**100), 2.0**100, width=32)


def _payload(tree: Tree) -> Payload:
    return {"update": Channel(tree, weight="weight", l2=1.0)}


def _round_trip(tree: Tree, dtype: Literal["int8", "bfloat16"], context: Context = CONTEXT) -> Tree:
    stage = quantise(dtype=dtype)
    encoded, state = stage.encode(context, _payload(tree), {})
    assert state == {}
    meta = {name: value.to("meta") for name, value in tree.items()}
    return stage.decode(context, encoded, _payload(meta))["update"].tree


def _neighbours(value: torch.Tensor, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The grid points on both sides, in float64."""
    exact = value.double()
    if dtype == "int8":
        scale = max(float(value.abs().max()), 127 * 2.0**-126) / 127
        return (exact / scale).floor() * scale, (exact / scale).ceil() * scale
    towards = (value.view(torch.int32) & -65536).view(torch.float32)
    away = ((value.view(torch.int32) & -65536) + 65536).view(torch.float32).double()
    away = torch.where(towards == value, exact, away)
    return torch.minimum(towards.double(), away), torch.maximum(towards.double(), away)


@given(st.lists(floats, min_size=1, max_size=30), st.sampled_from(DTYPES), st.integers(0, 50))
@settings(max_examples=200, deadline=None)
def test_a_value_goes_to_one_of_its_two_neighbours(
    values: list[float], dtype: Literal["int8", "bfloat16"], exchange: int
) -> None:
    value = torch.tensor(values)
    got = _round_trip({"a": value}, dtype, replace(CONTEXT, exchange=exchange))["a"].double()
    low, high = _neighbours(value, dtype)
    slack = float(value.abs().max()) * 1e-6 if dtype == "int8" else 0.0
    assert bool((torch.minimum((got - low).abs(), (got - high).abs()) <= slack).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mean_over_exchanges_is_the_value(dtype: Literal["int8", "bfloat16"]) -> None:
    value = torch.randn(200, generator=torch.Generator().manual_seed(0))
    low, high = _neighbours(value, dtype)
    count = 2000
    total = torch.zeros(200, dtype=torch.float64)
    for exchange in range(count):
        total += _round_trip({"a": value}, dtype, replace(CONTEXT, exchange=exchange))["a"]
    # A value is a coin between its neighbours: at most half their distance is its deviation.
    deviation = (high - low) / 2 / math.sqrt(count)
    error = (total / count - value.double()) / deviation.clamp(min=1e-9)
    assert float(error.abs().max()) < 5
    assert abs(float(error.mean())) < 5 / math.sqrt(200)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_stay(dtype: Literal["int8", "bfloat16"]) -> None:
    tree = {"none": torch.zeros(4), "some": torch.tensor([0.0, 1.0, -0.3]), "empty": torch.ones(0)}
    got = _round_trip(tree, dtype)
    assert torch.equal(got["none"], tree["none"])
    assert got["some"][0] == 0
    assert got["empty"].shape == (0,)


def test_grid_points_stay() -> None:
    whole = torch.arange(-127.0, 128.0)
    assert torch.equal(_round_trip({"a": whole}, "int8")["a"], whole)
    half = torch.randn(500).bfloat16()
    assert torch.equal(_round_trip({"a": half.float()}, "bfloat16")["a"], half.float())


def test_extreme_values_stay_finite() -> None:
    largest = torch.tensor([torch.finfo(torch.float32).max, -1e38])
    assert torch.isfinite(_round_trip({"a": largest}, "bfloat16")["a"]).all()
    tiny = torch.tensor([1e-44, -1e-40])
    for dtype in DTYPES:
        assert torch.isfinite(_round_trip({"a": tiny}, dtype)["a"]).all()


def test_a_scale_is_a_normal_number() -> None:
    tree = {"none": torch.zeros(3), "tiny": torch.tensor([1e-44]), "empty": torch.ones(0)}
    packed = quantise(dtype="int8").encode(CONTEXT, _payload(tree), {})[0]["update"].tree
    assert all(float(packed[f"{name}:scale"]) >= 2.0**-126 for name in tree)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("original", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_and_shapes_come_back(
    dtype: Literal["int8", "bfloat16"], original: torch.dtype
) -> None:
    value = torch.linspace(-1, 1, 6, dtype=original).view(3, 2).T
    got = _round_trip({"a": value, "scalar": value[0, 0], "n": torch.tensor([3])}, dtype)
    assert (got["a"].dtype, got["a"].shape) == (original, (2, 3))
    torch.testing.assert_close(got["a"], value, atol=0.02, rtol=0)
    assert torch.equal(got["n"], torch.tensor([3]))


@pytest.mark.parametrize(("dtype", "nbytes"), [("int8", 1000 + 4), ("bfloat16", 2000)])
def test_bytes(dtype: Literal["int8", "bfloat16"], nbytes: int) -> None:
    encoded, _ = quantise(dtype=dtype).encode(CONTEXT, _payload({"a": torch.randn(1000)}), {})
    assert payload_nbytes(encoded) == nbytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_randomness_has_an_address(dtype: Literal["int8", "bfloat16"]) -> None:
    tree = {"a": torch.randn(64), "b": torch.randn(64)}
    first = _round_trip(tree, dtype)
    again = _round_trip({"b": tree["b"], "a": tree["a"]}, dtype)
    assert all(torch.equal(first[name], again[name]) for name in tree)
    for other in (
        replace(CONTEXT, seed=1),
        replace(CONTEXT, round=2),
        replace(CONTEXT, exchange=4),
        replace(CONTEXT, client="bob"),
    ):
        assert not torch.equal(first["a"], _round_trip(tree, dtype, other)["a"])


def test_only_its_channels_are_touched() -> None:
    payload = {
        **_payload({"a": torch.randn(3)}),
        "control": Channel({"a": torch.randn(3)}, reduce="sum"),
        "examples": Channel({"count": torch.tensor(3.7)}, reduce="sum"),
    }
    kept = payload["update"].tree["a"].clone()
    stage = quantise(dtype="int8", channels=["update", "control"])
    encoded, _ = stage.encode(CONTEXT, payload, {})
    assert encoded["examples"] is payload["examples"]
    assert encoded["control"].tree["a"].dtype == torch.int8
    assert encoded["control"].reduce == "sum"
    assert (encoded["update"].weight, encoded["update"].l2) == ("weight", None)
    assert torch.equal(payload["update"].tree["a"], kept)
    decoded = stage.decode(CONTEXT, encoded, payload)
    assert {name: channel.tree.keys() for name, channel in decoded.items()} == {
        name: channel.tree.keys() for name, channel in payload.items()
    }


def test_facts_and_arguments() -> None:
    stage = quantise(dtype="int8")
    assert stage.packs
    assert stage.lossy
    assert not stage.dense_floats
    assert not stage.data_support
    assert stage.bound(1.0) is None
    with pytest.raises(ConfigError) as caught:
        quantise(dtype="int4")  # type: ignore[arg-type]
    assert str(caught.value) == "stage 'quantise': dtype is 'int4'; valid: int8, bfloat16"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_what_is_not_finite_is_not_sent(value: float, dtype: Literal["int8", "bfloat16"]) -> None:
    """Both travel as float32 at most, in which 1e300 is infinite."""
    tree = {"a": torch.tensor([value], dtype=torch.float64)}
    with pytest.raises(PayloadError, match="'a' holds values that are not finite in float32"):
        quantise(dtype=dtype).encode(CONTEXT, _payload(tree), {})
