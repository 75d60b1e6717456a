"""Arithmetic on trees, against the same written out on tensors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll import tree
from atoll.tree import Tree


def _tree(seed: int = 0, *, leading: tuple[int, ...] = ()) -> Tree:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn((*leading, *shape), generator=generator)
        for name, shape in {"b": (2, 3), "a": (4,), "scalar": ()}.items()
    }


def _equal(a: Tree, b: Tree) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_add_subtract_and_scale() -> None:
    x, y = _tree(0), _tree(1)
    kept = {name: value.clone() for name, value in x.items()}
    assert _equal(tree.add(x, y, alpha=2.0), {n: x[n] + 2 * y[n] for n in x})
    assert _equal(tree.subtract(x, y), {n: x[n] - y[n] for n in x})
    assert _equal(tree.scale(x, -0.5), {n: -0.5 * x[n] for n in x})
    assert _equal(tree.scale(x, torch.tensor(3.0)), {n: 3 * x[n] for n in x})
    assert _equal(x, kept)


def test_names_go_together_in_any_order() -> None:
    x = _tree(0)
    backwards = {name: x[name] for name in reversed(list(x))}
    assert _equal(tree.subtract(x, backwards), tree.zeros_like(x))
    with pytest.raises(AssertionError, match="different names"):
        tree.add(x, {"other": torch.zeros(1)})


def test_zeros_keep_shapes_and_dtypes() -> None:
    zeros = tree.zeros_like({"a": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor([3])})
    assert _equal(zeros, {"a": torch.zeros(2, dtype=torch.bfloat16), "n": torch.tensor([0])})


def test_l2_norm_is_that_of_all_values() -> None:
    x = _tree()
    joined = torch.cat([value.reshape(-1) for value in x.values()]).double()
    assert tree.l2_norm(x) == pytest.approx(float(joined.norm()), rel=1e-14)
    assert tree.l2_norm({}) == 0.0
    assert math.isnan(tree.l2_norm({"a": torch.tensor(math.nan), "b": torch.tensor(math.inf)}))


@given(st.permutations(["a", "b", "c", "d", "e"]))
def test_l2_norm_does_not_depend_on_the_order_of_names(order: list[str]) -> None:
    # Squares that vanish beside 1 one by one, and show when they are added first.
    values = {name: torch.tensor([1.0 if name == "a" else 1.04e-8]) for name in "abcde"}
    assert tree.l2_norm({name: values[name] for name in order}) == tree.l2_norm(values)


def test_l2_norm_does_not_overflow_its_dtype() -> None:
    assert tree.l2_norm({"a": torch.tensor([3e4, 4e4], dtype=torch.float16)}) == pytest.approx(
        5e4, rel=1e-3
    )


def test_all_finite() -> None:
    assert tree.all_finite({})
    assert tree.all_finite({"n": torch.tensor([1, 2]), "x": torch.ones(2)})
    for value in (math.nan, math.inf, -math.inf):
        assert not tree.all_finite({"x": torch.ones(2), "y": torch.tensor([0.0, value])})


def test_nbytes() -> None:
    assert tree.nbytes({"a": torch.zeros(3, dtype=torch.int8), "b": torch.zeros(2)}) == 3 + 8


def test_stack_puts_trees_beside_each_other() -> None:
    trees = [_tree(seed) for seed in range(3)]
    stacked = tree.stack(trees)
    for k, original in enumerate(trees):
        assert _equal({name: value[k] for name, value in stacked.items()}, original)


def test_unflatten_undoes_flatten_without_a_copy() -> None:
    stacked = _tree(leading=(5,))
    flat = tree.flatten(stacked)
    assert flat.shape == (5, 6 + 4 + 1)
    assert torch.equal(flat[2, :6], stacked["b"][2].reshape(-1))
    back = tree.unflatten(flat, _tree())
    assert _equal(back, stacked)
    back["a"].zero_()
    assert torch.equal(flat[:, 6:10], torch.zeros(5, 4))
