"""Discovers every algorithm's EXAMPLES, and crosses them with stage lists and runtimes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, replace

from atoll import algorithms
from atoll.core import Algorithm, Stage
from atoll.local.bench import Bench
from atoll.stages import clip, quantise, top_k
from tests.conformance.tiny import RUNTIMES, Scene, make_bench

STAGES: dict[str, tuple[Stage, ...]] = {
    "plain": (),
    "int8": (quantise(dtype="int8"),),
    "top_k": (top_k(fraction=0.3),),
    "clip": (clip(norm=0.05),),
}


@dataclass(frozen=True)
class Case:
    """One line of the property table."""

    module: str
    arguments: dict[str, object]
    stages: str = "plain"
    runtime: str = "inprocess"

    def __str__(self) -> str:
        arguments = ",".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.module}({arguments})-{self.stages}-{self.runtime}"

    def algorithm(self, bench: Bench) -> Algorithm:
        module = importlib.import_module(f"{algorithms.__name__}.{self.module}")
        plain: Algorithm = vars(module)[self.module](bench, **self.arguments)
        return replace(plain, stages=(*plain.stages, *STAGES[self.stages]))

    def scene(self, bench: Bench | None = None) -> Scene:
        bench = bench or make_bench()
        return Scene(bench, self.algorithm(bench), RUNTIMES[self.runtime])


def modules() -> list[str]:
    """The algorithm files; `heads` is a package of statistics exchanges and not among them."""
    return [x.name for x in pkgutil.iter_modules(algorithms.__path__) if not x.ispkg]


def cases(*stages: str) -> Iterator[Case]:
    """The first example of each algorithm under every stage list, the others under the first."""
    for name in modules():
        examples = vars(importlib.import_module(f"{algorithms.__name__}.{name}"))["EXAMPLES"]
        for number, arguments in enumerate(examples):
            for runtime in RUNTIMES:
                for listed in stages if number == 0 else stages[:1]:
                    yield Case(name, arguments, listed, runtime)
