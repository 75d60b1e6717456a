"""Whatever a client sends ends in one sentence, or in a payload that `validate` has seen."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atoll.core import Channel, Context, Payload, Stage, Tree, validate
from atoll.errors import PayloadError
from atoll.stages import quantise, top_k

CONTEXT = Context(0, "run", 1, 3, ("ada",), 9, client="ada")
LIKE: Payload = {"update": Channel({"a": torch.empty(2, 4, device="meta")})}
NUMBERS = torch.tensor([1, 2], dtype=torch.int8)
PAIR = torch.tensor([0.5, -1.0])
PLACES = torch.tensor([1, 6], dtype=torch.int32)


def _refusal(stage: Stage, tree: Tree) -> str:
    with pytest.raises(PayloadError) as caught:
        stage.decode(CONTEXT, {"update": Channel(tree)}, LIKE)
    return str(caught.value)


@pytest.mark.parametrize(
    "stage", [quantise(dtype="int8"), quantise(dtype="bfloat16"), top_k(fraction=0.25)]
)
def test_a_missing_channel(stage: Stage) -> None:
    with pytest.raises(PayloadError, match=r"^channel 'update' is missing; sent: other$"):
        stage.decode(CONTEXT, {"other": Channel({})}, LIKE)


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf, -math.inf])
def test_scales_are_finite_and_not_negative(scale: float) -> None:
    assert _refusal(quantise(dtype="int8"), {"a": NUMBERS, "a:scale": torch.tensor(scale)}) == (
        f"the scale of 'a' in channel 'update' is {scale}, expected a finite number that is not "
        "negative"
    )


@pytest.mark.parametrize(
    ("scale", "shown"),
    [
        (None, "missing"),
        (torch.ones(1), "float32[1]"),
        (torch.tensor(1.0, dtype=torch.float64), "float64[]"),
        (torch.tensor(1j), "complex64[]"),
        (NUMBERS, "int8[2]"),
    ],
)
def test_scales_are_one_float32(scale: Tensor | None, shown: str) -> None:
    tree = {"a": NUMBERS} if scale is None else {"a": NUMBERS, "a:scale": scale}
    assert _refusal(quantise(dtype="int8"), tree) == (
        f"the scale of 'a' in channel 'update' is {shown}, expected float32[]"
    )


def test_int8_refuses_other_floats_and_other_names() -> None:
    assert _refusal(quantise(dtype="int8"), {"a": PAIR}) == (
        "'a' of channel 'update' is float32[2], expected int8 and a scale"
    )
    assert _refusal(quantise(dtype="int8"), {"b:scale": torch.tensor(1.0)}) == (
        "'b:scale' of channel 'update' is float32[], expected int8 and a scale"
    )
    assert _refusal(quantise(dtype="int8"), {"b": NUMBERS, "b:scale": torch.tensor(1.0)}) == (
        "'b' of channel 'update' was not asked for"
    )


def test_bfloat16_refuses_other_floats_and_other_names() -> None:
    assert _refusal(quantise(dtype="bfloat16"), {"a": PAIR}) == (
        "'a' of channel 'update' is float32[2], expected bfloat16"
    )
    assert _refusal(quantise(dtype="bfloat16"), {"b": PAIR.bfloat16()}) == (
        "'b' of channel 'update' was not asked for"
    )


def test_top_k_refuses_other_names() -> None:
    told = "tensors of channel 'update' do not match what was asked for: "
    assert _refusal(top_k(fraction=0.25), {"a": PAIR}) == told + "a:indices"
    assert _refusal(top_k(fraction=0.25), {"a": PAIR, "a:indices": PLACES, "b": PAIR}) == told + "b"


@pytest.mark.parametrize(
    ("values", "places", "shown"),
    [
        (PAIR[:1], PLACES, "float32[1] at places int32[2], expected float32[2]"),
        (PAIR.double(), PLACES, "float64[2] at places int32[2], expected float32[2]"),
        (PAIR.view(2, 1), PLACES, "float32[2, 1] at places int32[2], expected float32[2]"),
        (PAIR, PLACES.long(), "float32[2] at places int64[2], expected int32[2]"),
        (PAIR, PLACES[:1], "float32[2] at places int32[1], expected int32[2]"),
        (torch.zeros(9), torch.zeros(9), "float32[9] at places float32[9], expected float32[2]"),
    ],
)
def test_top_k_refuses_other_shapes_and_dtypes(values: Tensor, places: Tensor, shown: str) -> None:
    assert _refusal(top_k(fraction=0.25), {"a": values, "a:indices": places}) == (
        f"'a' of channel 'update' came as {shown} there"
    )


@pytest.mark.parametrize(
    "places", [[-1, 3], [3, 8], [3, 3], [6, 1], [2**31 - 1, -(2**31)], [-(2**31), 2**31 - 1]]
)
def test_top_k_refuses_places_outside_or_twice(places: list[int]) -> None:
    tree = {"a": PAIR, "a:indices": torch.tensor(places, dtype=torch.int32)}
    assert _refusal(top_k(fraction=0.25), tree) == (
        "places of 'a' in channel 'update' are not ascending numbers from 0 to 7"
    )


def test_what_is_honest_passes() -> None:
    stage = top_k(fraction=0.25)
    payload: Payload = {"update": Channel({"a": PAIR, "a:indices": PLACES})}
    dense = stage.decode(CONTEXT, payload, LIKE)["update"].tree["a"]
    assert dense.tolist() == [[0.0, 0.5, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]]


tensors = st.builds(
    lambda shape, dtype, fill: torch.full(shape, fill).to(dtype),
    st.lists(st.integers(0, 4), max_size=2),
    st.sampled_from(
        [
            torch.float32,
            torch.bfloat16,
            torch.float64,
            torch.int8,
            torch.int32,
            torch.bool,
            torch.complex64,
        ]
    ),
    st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf]),
)
trees = st.dictionaries(
    st.sampled_from(["a", "a:scale", "a:indices", "a:indices:scale", "", ":scale", "b"]), tensors
)
CHAINS = [
    [quantise(dtype="int8")],
    [quantise(dtype="bfloat16")],
    [top_k(fraction=0.5)],
    [top_k(fraction=0.5), quantise(dtype="int8")],
    [top_k(fraction=0.5), quantise(dtype="bfloat16")],
]


@given(trees, st.sampled_from(CHAINS))
@settings(max_examples=400, deadline=None)
def test_anything_is_refused_or_right(tree: Tree, chain: list[Stage]) -> None:
    payload: Payload = {"update": Channel(tree)}
    try:
        for stage in reversed(chain):
            payload = stage.decode(CONTEXT, payload, LIKE)
        validate(payload, LIKE)
    except PayloadError:
        return
    value = payload["update"].tree["a"]
    assert value.shape == (2, 4)
    assert bool(torch.isfinite(value).all())
