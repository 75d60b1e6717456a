"""A frozen model whose adapted modules serve K clients in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from atoll import rng
from atoll.adapters.site import Frame, Site
from atoll.tree import Tree

__all__ = ["Own", "StackedModel"]


@dataclass(frozen=True)
class Own:
    """Parameters of a model itself that train, one client at a time.

    names: of the values -> of the parameters.
    init: seed -> the first values.
    readers: the modules that compute with them, each at its turn in a forward pass.
    casts: whether the rest of the model takes the precision of the values.
    noisy: modules that draw dropout while they train.
    """

    names: Mapping[str, str]
    init: Callable[[int], Tree]
    readers: frozenset[str]
    casts: bool = False
    noisy: tuple[nn.Module, ...] = ()


class StackedModel:
    """Runs one model with the values of a stack of clients.

    model: maps keyword inputs to logits; frozen, in eval mode, except for what draws dropout.
    sites: the adapted modules; their hooks stay until `close`.
    own: what of the model itself trains beside the sites.
    drops: whether training draws dropout; then a Frame must bring generators.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[Site],
        *,
        own: Own | None = None,
        drops: bool = False,
    ) -> None:
        self.model = model
        self.sites = tuple(sites)
        self.own = own
        self.drops = drops or (own is not None and bool(own.noisy))
        self._values: Tree = {}
        self._frame: Frame | None = None
        self._hooks = [
            hook
            for site in self.sites
            for hook in self._hooked(site, model.get_submodule(site.module))
        ]

    @property
    def touched(self) -> frozenset[str]:
        """Names of the modules in which something trains."""
        readers = frozenset[str]() if self.own is None else self.own.readers
        return readers | {site.module for site in self.sites}

    def init(self, seed: int) -> Tree:
        """The first values of everything that can train, without a client dimension."""
        values = {} if self.own is None else dict(self.own.init(seed))
        for site in self.sites:
            values |= site.init(rng.generator(seed, "adapter", site.module))
        return values

    def forward(self, values: Tree, inputs: Mapping[str, Tensor], frame: Frame) -> Tensor:
        """Logits [K·b, …] under values [K, …] (or [1, …], which serve every client)."""
        self._values, self._frame = values, frame
        try:
            if self.own is None:
                return self._logits(self.model(**inputs))
            assert frame.clients == 1, "a model's own parameters train one client at a time"
            own = {parameter: values[name][0] for name, parameter in self.own.names.items()}
            if self.own.casts:
                own = self._rest(own, next(iter(values.values())).dtype) | own
            with _own_dropout(self.own.noisy, frame):
                return self._logits(functional_call(self.model, own, (), dict(inputs)))
        finally:
            self._values, self._frame = {}, None

    def _rest(self, own: Tree, dtype: torch.dtype) -> Tree:
        """What does not train, where its precision is another: one forward has one precision."""
        named = (*self.model.named_parameters(), *self.model.named_buffers())
        return {
            name: value.to(dtype)
            for name, value in named
            if value.is_floating_point() and value.dtype != dtype and name not in own
        }

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    @staticmethod
    def _logits(output: object) -> Tensor:
        return output if isinstance(output, Tensor) else output.logits  # type: ignore[attr-defined]

    def _hooked(self, site: Site, module: nn.Module) -> Iterator[torch.utils.hooks.RemovableHandle]:
        apply, before = site.apply, site.before
        if before is not None:

            def ahead(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
                if self._frame is None:
                    return None
                return before(args[0], self._values, self._frame), *args[1:]

            yield module.register_forward_pre_hook(ahead)
        if apply is not None:

            def after(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
                if self._frame is None:
                    return None
                return apply(args[0], out, self._values, self._frame)

            yield module.register_forward_hook(after)


@contextmanager
def _own_dropout(modules: Sequence[nn.Module], frame: Frame) -> Iterator[None]:
    """A model's own dropout reads the global generator; lend it the client's."""
    if frame.generators is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(frame.generators[0].initial_seed())
        for module in modules:
            module.training = True
        try:
            yield
        finally:
            for module in modules:
                module.training = False
