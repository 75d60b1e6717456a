"""What `validate` refuses, and what a channel and a context are."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from atoll.core import Channel, Context, Payload, payload_nbytes, validate
from atoll.errors import PayloadError


def _reply(*, count: float = 3.0, value: float = 1.0) -> Payload:
    return {
        "update": Channel({"a": torch.full((2, 3), value)}, weight="weight"),
        "weight": Channel({"value": torch.tensor(count)}, reduce="sum"),
        "ids": Channel({"rows": torch.tensor([1, 2])}, reduce="none"),
    }


def _refusal(payload: Payload) -> str:
    with pytest.raises(PayloadError) as caught:
        validate(payload, _reply())
    return str(caught.value)


def _with_update(**tree: torch.Tensor) -> Payload:
    return {**_reply(), "update": Channel(tree, weight="weight")}


def test_what_was_agreed_passes() -> None:
    validate(_reply(count=0.0, value=-5.0), _reply())
    validate({}, {})


def test_the_template_may_be_without_values() -> None:
    meta = {
        name: channel.with_tree({key: value.to("meta") for key, value in channel.tree.items()})
        for name, channel in _reply().items()
    }
    validate(_reply(), meta)


def test_channels() -> None:
    payload = _reply()
    del payload["ids"]
    payload["more"] = Channel({})
    assert _refusal(payload) == "channels do not match what was asked for: ids, more"


def test_tensors() -> None:
    assert _refusal(_with_update(b=torch.zeros(2, 3))) == (
        "tensors of channel 'update' do not match what was asked for: a, b"
    )
    assert _refusal(_with_update()) == (
        "tensors of channel 'update' do not match what was asked for: a"
    )


def test_at_most_three_names_are_listed() -> None:
    many = {name: torch.zeros(1) for name in "zyxwv"}
    assert _refusal(_with_update(**many)).endswith(": a, v, w")


def test_shapes_and_dtypes() -> None:
    assert _refusal(_with_update(a=torch.zeros(3, 2))) == (
        "'a' of channel 'update' is float32[3, 2], expected float32[2, 3]"
    )
    assert _refusal(_with_update(a=torch.zeros(2, 3, dtype=torch.float16))) == (
        "'a' of channel 'update' is float16[2, 3], expected float32[2, 3]"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(value: float) -> None:
    assert _refusal(_reply(value=value)) == "channel 'update' holds values that are not finite"
    assert _refusal(_reply(count=value)) == "channel 'weight' holds values that are not finite"


def test_a_client_does_not_choose_how_it_is_added_up() -> None:
    payload = _reply()
    for odd, named in [
        (replace(payload["update"], reduce="sum"), "sum"),
        (replace(payload["update"], weight=None), "mean"),
        (replace(payload["update"], weight="ids"), "mean weighted by ids"),
    ]:
        assert _refusal({**payload, "update": odd}) == (
            f"channel 'update' asks for {named}, expected mean weighted by weight"
        )


def test_weights_are_not_negative() -> None:
    assert _refusal(_reply(count=-1.0)) == (
        "channel 'weight' weighs 'update': it must hold one number that is not negative"
    )


@pytest.mark.parametrize(
    "tree", [{"value": torch.ones(2)}, {"a": torch.ones(()), "b": torch.ones(())}, {}]
)
def test_a_weight_is_one_number(tree: dict[str, torch.Tensor]) -> None:
    odd = {**_reply(), "weight": Channel(tree, reduce="sum")}
    with pytest.raises(PayloadError, match="must hold one number"):
        validate(odd, odd)


def test_a_weight_is_there() -> None:
    alone = {"update": _reply()["update"]}
    with pytest.raises(PayloadError, match="channel 'weight' weighs 'update'"):
        validate(alone, alone)


def test_bytes_are_those_of_all_channels() -> None:
    assert payload_nbytes(_reply()) == 6 * 4 + 4 + 2 * 8
    assert payload_nbytes({}) == 0


def test_with_tree_keeps_what_the_server_may_do() -> None:
    channel = Channel({"a": torch.ones(1)}, "sum", weight="w", l2=2.0)
    other = channel.with_tree({"b": torch.zeros(1)})
    assert (other.reduce, other.weight, other.l2) == ("sum", "w", 2.0)
    assert list(other.tree) == ["b"]
    assert list(channel.tree) == ["a"]


def test_context() -> None:
    context = Context(7, "run", 2, 5, ("ada", "bob"), 8)
    assert context.sampling_rate == 0.25
    assert context.client == ""
    there = context.at("bob")
    assert there == replace(context, client="bob")
    assert context.client == ""
    with pytest.raises(FrozenInstanceError):
        context.round = 3  # type: ignore[misc]
