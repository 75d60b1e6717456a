"""Functions named in a file, found and bound."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest
from pydantic import Field, JsonValue

from atoll.config import Call, resolve
from atoll.errors import ConfigError


def fedprox(
    cohort: object,
    *,
    mu: float,
    steps: int = 1,
    order: Literal["up", "down"] = "up",
    betas: tuple[float, float] = (0.9, 0.999),
    names: tuple[str, ...] | None = None,
    share: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> tuple[object, ...]:
    return (cohort, mu, steps, order, betas, names, share)


def plain(cohort: object, scale: float = 1.0) -> object:
    return cohort


def nested(*, first: Call, others: tuple[Call, ...] = ()) -> tuple[Call, ...]:
    return (first, *others)


def odd(*, anything=None, hook: Callable[[int], int] = abs, module: ModuleType = sys) -> object:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return anything


def catalogue() -> ModuleType:
    module = ModuleType("catalogue")
    vars(module).update(fedprox=fedprox, plain=plain, nested=nested, odd=odd, Path=Path, hid=plain)
    vars(module)["__all__"] = ["Path", "fedprox", "nested", "odd", "plain"]
    return module


def where(path: str) -> str:
    known = {"federation.algorithm": 4, "federation.algorithm.name": 5}
    return f"f.yaml:{known.get(path, 6)}" if path else "default"


def call(name: str, arguments: dict[str, JsonValue] | None = None) -> Call:
    return Call(name, arguments or {}, path="federation.algorithm")


def refusal(
    name: str, arguments: dict[str, JsonValue] | None = None, *, package: ModuleType | str = ""
) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(call(name, arguments), package=package or catalogue(), where=where)
    return str(caught.value)


def test_arguments_are_bound_and_the_rest_keep_their_defaults() -> None:
    bound = resolve(call("fedprox", {"mu": 1}), package=catalogue(), where=where)
    assert bound.func is fedprox
    assert bound.keywords == {"mu": 1.0}
    assert type(bound.keywords["mu"]) is float
    assert bound("cohort") == ("cohort", 1.0, 1, "up", (0.9, 0.999), None, 1.0)


def test_lists_become_what_the_annotation_asks_for() -> None:
    arguments: dict[str, JsonValue] = {"mu": 0.5, "betas": [0, 0.5], "names": ["a"], "order": "up"}
    bound = resolve(call("fedprox", arguments), package=catalogue(), where=where)
    assert bound.keywords == {"mu": 0.5, "betas": (0.0, 0.5), "names": ("a",), "order": "up"}


def test_calls_inside_a_call_know_where_they_stand() -> None:
    arguments: dict[str, JsonValue] = {"first": "a", "others": ["b", {"name": "c", "x": 1}]}
    bound = resolve(call("nested", arguments), package=catalogue(), where=where)
    calls = bound()
    assert calls == (Call("a"), Call("b"), Call("c", {"x": 1}))
    assert [inner.path for inner in calls] == [  # type: ignore[attr-defined]
        "federation.algorithm.first",
        "federation.algorithm.others.0",
        "federation.algorithm.others.1",
    ]


def test_an_argument_without_a_type_takes_anything() -> None:
    bound = resolve(call("odd", {"anything": [1, "a"]}), package=catalogue(), where=where)
    assert bound() == [1, "a"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mu": "abc"}, 'mu is "abc"; expected a number'),
        ({"mu": "1"}, 'mu is "1"; expected a number'),
        ({"mu": None}, "mu is null; expected a number"),
        ({"mu": True}, "mu is true; expected a number"),
        ({"mu": 1, "steps": 1.5}, "steps is 1.5; expected a whole number"),
        (
            {"mu": 1, "order": "dwn"},
            'order is "dwn"; expected one of up, down; did you mean "down"?',
        ),
        ({"mu": 1, "betas": [1]}, "betas is [1]; expected a list"),
        ({"mu": 1, "names": "a"}, 'names is "a"; expected a list (each item: text), or null'),
        (
            {"mu": 1, "share": 0},
            "share is 0; expected a number greater than 0 and of at most 1",
        ),
    ],
)
def test_a_value_of_the_wrong_type(value: dict[str, JsonValue], message: str) -> None:
    assert refusal("fedprox", value) == f"f.yaml:6: federation.algorithm.{message}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"module": "os"}, "module cannot be set in a file (its type is module); remove it"),
        ({"hook": "os:system"}, 'hook is "os:system"; expected another value'),
    ],
)
def test_a_type_that_no_file_can_express(value: dict[str, JsonValue], message: str) -> None:
    assert refusal("odd", value) == f"f.yaml:6: federation.algorithm.{message}"


def test_problems_of_one_call_come_together() -> None:
    assert refusal("fedprox", {"muu": 1, "cohort": 2, "steps": "x"}).split("\n") == [
        'f.yaml:6: unknown argument "muu" of fedprox; did you mean "mu"? Valid: mu, steps, order, '
        "betas, names, share",
        'f.yaml:6: unknown argument "cohort" of fedprox. Valid: mu, steps, order, betas, names, '
        "share",
        "f.yaml:4: fedprox needs mu (a number); write {name: fedprox, mu: ...}",
        'f.yaml:6: federation.algorithm.steps is "x"; expected a whole number',
    ]


def test_positional_parameters_are_not_set_from_a_file() -> None:
    message = 'f.yaml:6: unknown argument "scale" of plain, which takes none'
    assert refusal("plain", {"scale": 1}) == message


@pytest.mark.parametrize(("name", "near"), [("fedprx", '; did you mean "fedprox"?'), ("zz", ".")])
def test_an_unknown_name(name: str, near: str) -> None:
    assert refusal(name) == (
        f'f.yaml:5: unknown algorithm "{name}"{near} Valid: fedprox, nested, odd, plain; or your '
        "own, as my_package.module:function"
    )


@pytest.mark.parametrize("name", ["hid", "Path"])
def test_only_public_functions_are_found(name: str) -> None:
    assert refusal(name).startswith(f'f.yaml:5: unknown algorithm "{name}"')


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("federation.stages.1", "stage"),
        ("federation.server", "server"),
        ("data.partition", "partition"),
        ("", "function"),
    ],
)
def test_the_kind_is_that_of_the_key(path: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f': unknown {kind} "zz"'):
        resolve(Call("zz", path=path), package=catalogue(), where=where)
