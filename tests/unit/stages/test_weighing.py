"""Weights are numbers of examples, or ones, and hold where nobody set another."""

from __future__ import annotations

import math

import pytest
import torch

from atoll.core import Channel, Context, Payload, validate
from atoll.errors import PayloadError
from atoll.stages import by_examples, uniform

CONTEXT = Context(0, "run", 1, 3, ("ada", "bob", "eve"), 9, client="ada")


def _work(*, examples: float = 12.0) -> Payload:
    return {
        "update": Channel({"a": torch.ones(2)}),
        "bias": Channel({"b": torch.ones(1)}),
        "control": Channel({"a": torch.ones(2)}, reduce="sum"),
        "notes": Channel({"a": torch.ones(2)}, reduce="none"),
        "examples": Channel({"count": torch.tensor(examples)}, reduce="sum"),
        "metrics": Channel({"loss": torch.tensor(0.5)}, weight="examples"),
    }


@pytest.mark.parametrize(("stage", "expected"), [(by_examples(), 12.0), (uniform(), 1.0)])
def test_the_weight_and_who_is_weighed(stage, expected) -> None:  # noqa: ANN001
    payload = _work()
    encoded, state = stage.encode(CONTEXT, payload, {})
    assert torch.equal(encoded["weight"].tree["value"], torch.tensor(expected))
    assert encoded["weight"].reduce == "sum"
    assert {name: channel.weight for name, channel in encoded.items()} == {
        "update": "weight",
        "bias": "weight",
        "control": None,
        "notes": None,
        "examples": None,
        "metrics": "examples",
        "weight": None,
    }
    assert state == {}
    assert "weight" not in payload
    assert payload["update"].weight is None


@pytest.mark.parametrize(("stage", "expected"), [(by_examples(), 12.0), (uniform(), 1.0)])
def test_work_that_names_its_weights_is_believed(stage, expected) -> None:  # noqa: ANN001
    payload = _work()
    payload["weight"] = Channel({"value": torch.tensor(5.0)}, reduce="sum")
    payload["update"] = Channel({"a": torch.ones(2)}, weight="weight")
    encoded, _ = stage.encode(CONTEXT, payload, {})
    assert float(encoded["weight"].tree["value"]) == expected
    assert encoded["update"].weight == "weight"
    assert encoded["bias"].weight is None
    assert float(payload["weight"].tree["value"]) == 5.0


@pytest.mark.parametrize("stage", [by_examples(), uniform()], ids=lambda stage: stage.name)
def test_a_template_without_values_passes_through(stage) -> None:  # noqa: ANN001
    meta = {
        name: channel.with_tree({key: value.to("meta") for key, value in channel.tree.items()})
        for name, channel in _work().items()
    }
    like, _ = stage.encode(CONTEXT, meta, {})
    encoded, _ = stage.encode(CONTEXT, _work(), {})
    validate(stage.decode(CONTEXT, encoded, like), like)


def test_a_weight_has_memory_of_its_own() -> None:
    payload = _work()
    encoded, _ = by_examples().encode(CONTEXT, payload, {})
    count = payload["examples"].tree["count"]
    assert encoded["weight"].tree["value"].data_ptr() != count.data_ptr()
    assert encoded["weight"].tree["value"].dtype == torch.float32


def _decode(value: torch.Tensor, *, client: str = "ada") -> Payload:
    payload = {"weight": Channel({"value": value}, reduce="sum")}
    return uniform().decode(CONTEXT.at(client), payload, payload)


@pytest.mark.parametrize("value", [0.0, 2.0, -1.0, math.nan, math.inf])
def test_uniform_refuses_a_client_that_counts_itself_differently(value: float) -> None:
    _decode(torch.tensor(1.0))
    with pytest.raises(PayloadError) as caught:
        _decode(torch.tensor(value))
    assert str(caught.value) == (f"the weight is {value:g}, expected 1: all clients count the same")


def test_uniform_on_the_sum_counts_at_most_the_cohort() -> None:
    for total in (0.0, 2.0, 3.0):
        _decode(torch.tensor(total), client="")
    with pytest.raises(PayloadError) as caught:
        _decode(torch.tensor(4.0), client="")
    assert str(caught.value) == (
        "the weight is 4, expected at most 3, one for each client: all clients count the same"
    )


@pytest.mark.parametrize("value", [torch.ones(2), torch.tensor(1j), torch.tensor(True)])
def test_uniform_refuses_what_is_no_number(value: torch.Tensor) -> None:
    with pytest.raises(PayloadError, match=r"the weight is .*, expected float32\[\]"):
        _decode(value)


def test_uniform_refuses_a_payload_without_weight() -> None:
    with pytest.raises(PayloadError, match="channel 'weight' is missing; sent: update"):
        uniform().decode(CONTEXT, {"update": Channel({})}, {})
    with pytest.raises(PayloadError, match="the weight is missing"):
        uniform().decode(CONTEXT, {"weight": Channel({})}, {})


def test_facts() -> None:
    assert (by_examples().weighs, by_examples().channels) == ("examples", ("examples",))
    assert (uniform().weighs, uniform().channels) == ("uniform", ())
    assert by_examples().bound(2.0) == 2.0
