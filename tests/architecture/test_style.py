"""Rules on every module, each with a violation that it must see."""

from __future__ import annotations

import pytest

from tests.architecture import source
from tests.architecture.source import modules

SOURCES = modules()

# Third-party objects whose attributes are not known before: a model's configuration, an enum of
# PEFT's, a class of transformers by name, a dtype of torch by name.
OTHERS = {
    "getattr(module, 'data_format', None)",
    "getattr(config, 'max_position_embeddings', None)",
    "getattr(torch, dtype)",
    "getattr(transformers, auto_class)",
    "getattr(value, 'value', value)",
}

# Packages and modules whose draws are secret: noise, masks, keys, cohorts.
HIDING = [
    "atoll.accounting", "atoll.ckks", "atoll.ledger", "atoll.matrix", "atoll.noise",
    "atoll.protection", "atoll.secagg", "atoll.local.clipped", "atoll.local.per_example",
    "atoll.local.row_gradients", "atoll.servers.noised", "atoll.servers.quantile",
    "atoll.stages.clipping",
]  # fmt: skip


@pytest.fixture(params=SOURCES)
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_all_is_sorted_and_complete(module: str) -> None:
    assert source.wrong_all(module, SOURCES[module]) == []


def test_a_wrong_all_is_seen() -> None:
    text = '__all__ = ["b", "a", "gone"]\ndef a(): ...\ndef b(): ...\ndef c(): ...\nclass D: ...\n'
    assert source.wrong_all("m", text) == [
        "m: D is not in __all__", "m: c is not in __all__", "m: __all__ is not sorted",
        "m: __all__ holds gone, which is not there",
    ]  # fmt: skip
    assert source.wrong_all("m", "def a(): ...\n") == ["m has no __all__"]
    assert source.wrong_all("m", "def _a(): ...\n") == []
    good = 'from x import y\nZED = 1\n__all__ = ["ZED", "B", "a", "y"]\ndef a(): ...\nclass B: ...'
    assert source.wrong_all("m", good) == []


def test_signatures_are_narrow_and_named(module: str) -> None:
    assert source.wide_signatures(SOURCES[module]) == []


def test_a_wide_signature_is_seen() -> None:
    assert source.wide_signatures("def f(a, **more): ...") == ["f takes **more"]
    assert source.wide_signatures("def f(a, b, /, c, d, *, e, f, g): ...") == [
        "f takes 7 parameters"
    ]
    inside = "class C:\n    def f(self, a, b, c, d, e, f):\n        def g(**x): ..."
    assert source.wide_signatures(inside) == ["g takes **x"]
    option = ", ".join(f"x{i}: Annotated[int, typer.Option()]" for i in range(9))
    assert source.wide_signatures(f"def command({option}): ...") == []


def test_functions_are_short(module: str) -> None:
    assert source.long_functions(SOURCES[module]) == []


def test_a_long_function_is_seen() -> None:
    body = "\n".join("    x = 1" for _ in range(39))
    assert source.long_functions(f"def f():\n{body}") == ["f has 40 lines"]
    text = f'def f():\n    """D."""\n    def g():\n        return 1\n{body[10:]}'
    assert source.long_functions(text) == []


def test_files_are_short(module: str) -> None:
    assert len(SOURCES[module].splitlines()) < 200


def test_no_reflection_on_our_own_objects(module: str) -> None:
    assert set(source.reflections(SOURCES[module])) <= OTHERS


def test_reflection_is_seen() -> None:
    assert source.reflections("x = hasattr(bench, 'head')") == ["hasattr(bench, 'head')"]
    assert source.reflections("setattr(a, b, getattr(c, d))") == [
        "setattr(a, b, getattr(c, d))", "getattr(c, d)",
    ]  # fmt: skip


def test_the_allowed_reflections_are_needed() -> None:
    assert {x for text in SOURCES.values() for x in source.reflections(text)} == OTHERS


def test_nothing_runs_code_from_a_file_or_the_network(module: str) -> None:
    assert source.dangers(SOURCES[module]) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load(p)", "eval(x)",
        "from torch import load", "exec(x)", "yaml.load(f)", "f(trust_remote_code=True)",
        "run(c, shell=True)", "from yaml import unsafe_load", "import dill.source",
    ],
)  # fmt: skip
def test_danger_is_seen(text: str) -> None:
    assert source.dangers(text)


def test_safe_code_is_not_danger() -> None:
    assert source.dangers("yaml.safe_load(f)\nload_file(p)\nf(trust_remote_code=given)") == []


@pytest.mark.parametrize("hiding", HIDING)
def test_what_hides_clients_cannot_be_guessed(hiding: str) -> None:
    found = {name: source.guessable(text) for name, text in SOURCES.items()
             if f"{name}.".startswith(f"{hiding}.")}  # fmt: skip
    assert found
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import random", "from random import Random", "np.random.default_rng(0)",
        "from numpy.random import normal", "from atoll import rng", "from numpy import random",
        "torch.randn(3)", "torch.normal(0, 1, (3,))", "x.normal_()", "norm.rvs(3)",
        "torch.Generator()", "import numpy.random", "from atoll.rng import derive",
    ],
)  # fmt: skip
def test_what_can_be_guessed_is_seen(text: str) -> None:
    assert source.guessable(text)


def test_secrets_of_the_system_are_no_guess() -> None:
    assert source.guessable("import os\nos.urandom(32)\nstream.random\nkey.randomized") == []


def test_only_the_command_line_prints(module: str) -> None:
    assert module.startswith("atoll.cli") or source.prints(SOURCES[module]) == []


def test_prints_are_seen() -> None:
    assert source.prints("def f():\n    print('x')") == ["print('x')"]
    assert source.prints("console.print('x')") == []


def test_no_class_inherits_from_ours() -> None:
    assert source.children(SOURCES) == []


def test_inheritance_is_seen() -> None:
    text = "class A(nn.Module): ...\nclass B(A): ...\nclass E(ValueError): ...\nclass F(E): ..."
    assert source.children({"m": text}) == ["B inherits from A"]
    two = {"m": "class A: ...", "n": "import m\nclass B(m.A): ..."}
    assert source.children(two) == ["B inherits from A"]
    assert source.children({"m": "class P(Protocol): ...\nclass Q(P): ..."}) == [
        "Q inherits from P"
    ]
