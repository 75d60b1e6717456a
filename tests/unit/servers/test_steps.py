"""Steps on the way down: the formula, the same adapter on both sides, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.core import Channel, Context, Payload, Server, Stage, State, Tree
from atoll.errors import CompositionError, ConfigError, HeldError, PayloadError
from atoll.servers import average, momentum
from atoll.servers.steps import following, in_steps
from atoll.stages import clip, quantise, top_k
from atoll.tree import nbytes
from tests.support.models import Zoo
from tests.support.scenes import scene

SHAPES = {"a": (4, 5), "b": (7,)}
STAGES = {
    "int8": [quantise(dtype="int8")],
    "bfloat16": [quantise(dtype="bfloat16")],
    "top_k": [top_k(fraction=0.2)],
    "both": [top_k(fraction=0.5), quantise(dtype="int8")],
}
packings = pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES)


def stepping(inner: Server, stages: list[Stage]) -> Server:
    return following(in_steps(inner, stages), stages)


def context(exchange: int) -> Context:
    return Context(3, "run", exchange + 1, exchange, ("ada", "bob"), 2)


def tree(seed: int, dtype: torch.dtype = torch.float32) -> Tree:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw).to(dtype) for name, shape in SHAPES.items()}


def start(dtype: torch.dtype = torch.float32) -> State:
    return {"adapter": tree(0, dtype), "head": {"h": torch.zeros(3)}}


def aggregate(seed: int) -> Payload:
    update = {**tree(seed), "h": torch.full((3,), float(seed))}
    return {"update": Channel({name: 0.1 * value for name, value in update.items()})}


def received(server: Server, sent: Payload, adapter: Tree | None) -> Payload:
    assert server.downlink is not None
    return server.downlink.received(context(0), sent, adapter)


def same(a: Tree, b: Tree) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in b)


@packings
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_who_follows_has_the_servers_adapter(stages: list[Stage], dtype: torch.dtype) -> None:
    server = stepping(momentum(), stages)
    evaluation = following(average(), stages)
    state = server.init(start(dtype))
    adapter = received(server, server.sent(state, "ada", None), None)["adapter"].tree
    for number in range(6):
        state = server.apply(context(number), state, aggregate(number))
        sent = server.sent(state, "ada", number)
        if nbytes(state["step"]) < nbytes(state["adapter"]):
            assert "adapter" not in sent
        whole = received(server, sent, adapter)
        assert whole.keys() == {"adapter", "head"}
        assert same(whole["adapter"].tree, state["adapter"])
        assert same(whole["head"].tree, state["head"])
        assert all(value.dtype == dtype for value in whole["adapter"].tree.values())
        adapter = whole["adapter"].tree
        # A later question about the same adapter brings nothing of it.
        again = evaluation.sent(state, "ada", number + 1)
        assert again["step"].tree == {}
        assert same(received(evaluation, again, adapter)["adapter"].tree, adapter)


def test_the_formula_with_the_largest_values() -> None:
    """u = w⁺ − w + e; the k largest magnitudes of u move w; the rest is e."""
    server = stepping(average(), [top_k(fraction=0.2)])
    state = server.init(start())
    w, e = tree(0), {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for number in range(5):
        state = server.apply(context(number), state, aggregate(number))
        for name, value in aggregate(number)["update"].tree.items():
            if name == "h":
                continue
            u = value + e[name]
            kept = torch.zeros_like(u).flatten()
            places = u.flatten().abs().argsort(descending=True)[: round(0.2 * u.numel())]
            kept[places] = u.flatten()[places]
            w[name] = w[name] + kept.view_as(u)
            e[name] = u - kept.view_as(u)
            torch.testing.assert_close(state["adapter"][name], w[name], rtol=0, atol=1e-6)
            torch.testing.assert_close(state["unsent"][name], e[name], rtol=0, atol=1e-6)
    # What trains beside the adapter is never packed.
    torch.testing.assert_close(state["head"]["h"], torch.full((3,), 1.0))


@packings
@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=8))
def test_nothing_is_lost_for_good(stages: list[Stage], seeds: list[int]) -> None:
    """Where clients are and what they were not sent yet are where the server would be."""
    plain, server = average(), stepping(average(), stages)
    exact, state = plain.init(start()), server.init(start())
    for number, seed in enumerate(seeds):
        exact = plain.apply(context(number), exact, aggregate(seed))
        state = server.apply(context(number), state, aggregate(seed))
    for name, value in exact["adapter"].items():
        reached = state["adapter"][name] + state["unsent"][name]
        torch.testing.assert_close(reached, value, rtol=0, atol=1e-5)


def test_bytes_are_fewer() -> None:
    def size(payload: Payload) -> int:
        return sum(v.numel() * v.element_size() for c in payload.values() for v in c.tree.values())

    for name, expected in [("int8", 27 + 2 * 4), ("bfloat16", 54), ("top_k", 5 * 8)]:
        server = stepping(average(), STAGES[name])
        state = server.apply(context(0), server.init(start()), aggregate(1))
        assert size(server.sent(state, "ada", None)) == 27 * 4 + 3 * 4
        # Two digests, the head, and the step.
        assert size(server.sent(state, "ada", 0)) == 64 + 3 * 4 + expected
        assert size(server.sent(state, "ada", 1)) == 64 + 3 * 4


def test_who_has_another_adapter_is_not_misled() -> None:
    server = stepping(average(), STAGES["int8"])
    state = server.init(start())
    for number in range(3):
        state = server.apply(context(number), state, aggregate(number))
    # Who answered before the last step gets all of it.
    assert "adapter" in server.sent(state, "ada", 1)
    step, nothing = server.sent(state, "ada", 2), server.sent(state, "ada", 3)
    for sent, adapter, why in [
        (step, None, "no adapter here to take it from"),
        (nothing, None, "no adapter here to take it from"),
        (step, tree(0), "from another adapter"),
        (nothing, tree(0), "does not lead where it should"),
    ]:
        with pytest.raises(HeldError, match=why):
            received(server, sent, adapter)


def test_a_step_of_a_hostile_server_is_refused() -> None:
    server = stepping(average(), STAGES["int8"])
    before = server.init(start())
    state = server.apply(context(0), before, aggregate(0))
    good = server.sent(state, "ada", 0)
    step = good["step"].tree

    def changed(**tensors: Any) -> Payload:
        return {**good, "step": good["step"].with_tree({**step, **tensors})}

    def without(*names: str) -> Payload:
        left = {name: value for name, value in step.items() if name not in names}
        return {**good, "step": good["step"].with_tree(left)}

    for odd, why in [
        (without("a", "a:scale"), "other names"),
        (changed(c=step["a"]), "was not asked for"),
        (changed(a=torch.zeros(10**6, dtype=torch.int8)), "larger than the adapter"),
        (changed(**{f"x{i}": step["b"] for i in range(9)}), "larger than the adapter"),
        (changed(a=step["b"]), "cannot be added"),
        (changed(**{"a:scale": torch.tensor(float("nan"))}), "scale"),
        (changed(**{"a:scale": torch.tensor(1e38)}), "cannot be added"),
        (changed(a=step["a"].flip(0)), "does not lead where it should"),
    ]:
        with pytest.raises(PayloadError, match=why):
            received(server, odd, before["adapter"])
    # What stands beside a step does not take its place.
    both = {**good, "adapter": Channel(tree(9))}
    assert same(received(server, both, before["adapter"])["adapter"].tree, state["adapter"])
    plain = {name: one for name, one in good.items() if name != "trail"}
    # Without its digests it is no step, and its names are for the model to refuse.
    assert received(server, plain, before["adapter"]) is plain


def test_a_step_that_is_no_smaller_does_not_travel() -> None:
    server = stepping(average(), [quantise(dtype="bfloat16")])
    state = server.apply(context(0), server.init(start(torch.bfloat16)), aggregate(0))
    assert "adapter" in server.sent(state, "ada", 0)
    assert "adapter" not in server.sent(state, "ada", 1)


def test_a_state_begins_with_the_parts_that_it_will_have() -> None:
    """A plan counts what checkpoints will hold."""
    server = stepping(average(), STAGES["both"])
    first = server.init(start())
    after = server.apply(context(0), first, aggregate(0))
    assert first.keys() == after.keys()
    assert [nbytes(first[part]) for part in first] == [nbytes(after[part]) for part in first]
    assert server.init(after) == after
    assert "adapter" in server.sent(first, "ada", 10**6)


def test_a_wide_adapter_loses_no_digit() -> None:
    server, plain = stepping(average(), [top_k(fraction=1.0)]), average()
    state, exact = server.init(start(torch.float64)), start(torch.float64)
    for number in range(5):
        state = server.apply(context(number), state, aggregate(number))
        exact = plain.apply(context(number), exact, aggregate(number))
    for name, value in exact["adapter"].items():
        torch.testing.assert_close(state["adapter"][name], value, rtol=0, atol=1e-15)


def test_inputs_are_not_changed() -> None:
    server = stepping(average(), STAGES["both"])
    state = server.init(start())
    kept = {part: {name: value.clone() for name, value in one.items()}
            for part, one in state.items()}  # fmt: skip
    after = server.apply(context(0), state, aggregate(0))
    received(server, server.sent(after, "ada", 0), state["adapter"])
    assert all(same(state[part], kept[part]) for part in kept)


def test_stages_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="'clip' packs nothing that a server sends"):
        in_steps(average(), [clip(norm=1.0)])
    with pytest.raises(CompositionError, match="put 'top_k' first"):
        in_steps(average(), [quantise(dtype="int8"), top_k(fraction=0.1)])
    with pytest.raises(ConfigError, match="stages quantise, quantise cannot follow each other"):
        in_steps(average(), [quantise(dtype="bfloat16"), quantise(dtype="int8")])
    hidden = replace(quantise(dtype="int8"), decode_at="sum")
    with pytest.raises(ConfigError, match="'quantise' packs nothing"):
        in_steps(average(), [hidden])


@pytest.mark.parametrize(
    ("adapter", "stages", "why"),
    [
        ({"method": "lora"}, [{"name": "clip", "norm": 1.0}], "stage 'clip' packs nothing"),
        ({"method": "adalora"}, [{"name": "top_k", "fraction": 0.5}], "adapter.method adalora"),
    ],
)
def test_the_place_in_the_file_is_told(
    adapter: dict[str, Any], stages: list[dict[str, Any]], why: str, zoo: Zoo, tmp_path: Path
) -> None:
    federation = {"broadcast_stages": stages}
    with pytest.raises(ConfigError, match=rf"experiment\.yaml:\d+: {why}"):
        scene(tmp_path, zoo, adapter=adapter, federation=federation)
