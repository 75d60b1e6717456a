"""A frozen model whose adapted modules serve K clients in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from atoll import rng
from atoll.adapters.dense import precise
from atoll.adapters.site import Frame, Site
from atoll.tree import Tree

__all__ = ["StackedModel"]


class StackedModel:
    """Runs one model with the values of a stack of clients.

    model: maps keyword inputs to logits; frozen, in eval mode, except for a full model.
    sites: the adapted modules; their hooks stay until `close`.
    whole: train the model's own parameters (one client at a time) beside the sites; the model
        then computes in the precision of the values, whatever its own is.
    drops: whether training draws dropout; then a Frame must bring generators.
    leave_out: parameters that stay as they are when the whole model trains.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[Site],
        *,
        whole: bool = False,
        drops: bool = False,
        leave_out: Collection[str] = (),
    ) -> None:
        self.model = model
        self.sites = tuple(sites)
        self.whole = whole
        self.drops = drops or whole
        at_sites = tuple(f"{site.module}." for site in self.sites)
        self._owned = tuple(
            name
            for name, _ in model.named_parameters()
            if whole and name not in leave_out and not (at_sites and name.startswith(at_sites))
        )
        self._values: Tree = {}
        self._frame: Frame | None = None
        self._hooks = [
            model.get_submodule(site.module).register_forward_hook(self._hook(site.apply))
            for site in self.sites
        ]

    def init(self, seed: int) -> Tree:
        """The first values of everything that can train, without a client dimension."""
        values = {name: precise(self.model.get_parameter(name)) for name in self._owned}
        for site in self.sites:
            values |= site.init(rng.generator(seed, "adapter", site.module))
        return values

    def forward(self, values: Tree, inputs: Mapping[str, Tensor], frame: Frame) -> Tensor:
        """Logits [K·b, …] under values [K, …] (or [1, …], which serve every client)."""
        self._values, self._frame = values, frame
        try:
            if not self.whole:
                return self._logits(self.model(**inputs))
            assert frame.clients == 1, "a whole model trains one client at a time"
            own = {name: values[name][0] for name in self._owned}
            own = self._rest(next(iter(values.values())).dtype) | own
            with _own_dropout(self.model, frame):
                return self._logits(functional_call(self.model, own, (), dict(inputs)))
        finally:
            self._values, self._frame = {}, None

    def _rest(self, dtype: torch.dtype) -> Tree:
        """What does not train, where its precision is another: one forward has one precision."""
        named = (*self.model.named_parameters(), *self.model.named_buffers())
        return {
            name: value.to(dtype)
            for name, value in named
            if value.is_floating_point() and value.dtype != dtype and name not in self._owned
        }

    def close(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    @staticmethod
    def _logits(output: object) -> Tensor:
        return output if isinstance(output, Tensor) else output.logits  # type: ignore[attr-defined]

    def _hook(
        self, apply: Callable[[Tensor, Tensor, Tree, Frame], Tensor]
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
            if self._frame is None:
                return None
            return apply(args[0], out, self._values, self._frame)

        return hook


@contextmanager
def _own_dropout(model: nn.Module, frame: Frame) -> Iterator[None]:
    """The model's own dropout reads the global generator; lend it the client's."""
    if frame.generators is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(frame.generators[0].initial_seed())
        model.train()
        try:
            yield
        finally:
            model.eval()
