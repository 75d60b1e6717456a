"""Discovers every algorithm's EXAMPLES, and crosses them with stage lists and runtimes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from atoll import algorithms
from atoll.core import Algorithm, Context, Payload, Stage, Tree
from atoll.local.bench import Bench
from atoll.stages import clip, quantise, top_k
from tests.conformance.tiny import RUNTIMES, Scene, make_bench

TREES = ("update", "control")
"""Channels as large as what is trained: a stage list treats all of them that it may."""


def mirror(*, channels: tuple[str, ...]) -> Stage:
    """Sends every value with the other sign: nothing is lost, and nothing can be read as it is."""

    def flipped(payload: Payload) -> Payload:
        trees = {name: {key: -value for key, value in payload[name].tree.items()}
                 for name in channels}  # fmt: skip
        return {**payload, **{name: payload[name].with_tree(tree) for name, tree in trees.items()}}

    def encode(context: Context, payload: Payload, state: Tree) -> tuple[Payload, Tree]:
        return flipped(payload), state

    def decode(context: Context, payload: Payload, like: Payload) -> Payload:
        return flipped(payload)

    return Stage("mirror", channels, encode, decode, packs=True)


Listed = Callable[[tuple[str, ...]], Stage]
STAGES: dict[str, tuple[Listed, ...]] = {
    "plain": (),
    "int8": (lambda channels: quantise(dtype="int8", channels=channels),),
    "top_k": (lambda channels: top_k(fraction=0.3),),
    "clip": (lambda channels: clip(norm=0.05, channels=channels),),
    "mirror": (lambda channels: mirror(channels=channels),),
}
REFUSED = {("fednova", "clip")}
"""Stage lists that an algorithm cannot have on `update`; `test_refusals` holds them to it."""


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
        sent = tuple(name for name in TREES if name in plain.client.channels)
        free = tuple(name for name in sent if name not in plain.client.kept)
        for make in STAGES[self.stages]:
            stage = make(sent)
            stage = make(free) if stage.lossy else stage
            plain = replace(plain, stages=(*plain.stages, stage))
        return plain

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
                    if (name, listed) not in REFUSED:
                        yield Case(name, arguments, listed, runtime)
