"""A frozen model whose adapted modules serve K clients in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from atoll import rng
from atoll.adapters.blocks import block_lists
from atoll.adapters.own import Own
from atoll.adapters.recompute import lent, recomputed
from atoll.adapters.site import Frame, Site
from atoll.errors import ModelError
from atoll.tree import Tree

__all__ = ["StackedModel"]


class StackedModel:
    """Runs one model with the values of a stack of clients.

    model: maps keyword inputs to logits; frozen, in eval mode, except for what draws dropout.
    sites: the adapted modules; their hooks stay until `close`.
    own: what of the model itself trains beside the sites.
    drops: whether training draws dropout; then a Frame must bring generators.
    blocks: those that backward runs again, see `recompute`.
    alone: why clients cannot share a forward pass, once that was tried; None: they can.
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
        self.blocks: tuple[nn.Module, ...] = ()
        self.alone: str | None = None
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

    def recompute(self) -> None:
        """Keep of the model's blocks only what they read, and run them again in backward.

        Raises:
            ModelError: when the model has no list of blocks.
        """
        names = [name for blocks in block_lists(self.model) for name in blocks]
        if not names:
            raise ModelError(
                "train.gradient_checkpointing is true, but the model has no list of blocks to "
                "compute again; remove it, or lower train.per_device_train_batch_size"
            )
        self.blocks = tuple(self.model.get_submodule(name) for name in names)

    def penalty(self, values: Tree) -> Tensor | float:
        """What the method adds to the loss of a step, by values [1, …]."""
        if self.own is None or self.own.penalty is None:
            return 0.0
        return self.own.penalty({name: values[name][0] for name in self.own.names})

    @contextmanager
    def keeping_all(self) -> Iterator[None]:
        """As if no block were run again in backward."""
        blocks, self.blocks = self.blocks, ()
        try:
            yield
        finally:
            self.blocks = blocks

    def forward(self, values: Tree, inputs: Mapping[str, Tensor], frame: Frame) -> Tensor:
        """Logits [K·b, …] under values [K, …] (or [1, …], which serve every client)."""
        if self.own is None:
            with self._under(values, frame), self._kept(values, frame):
                return self._logits(self.model(**inputs))
        assert frame.clients == 1, "a model's own parameters train one client at a time"
        own = {parameter: values[name][0] for name, parameter in self.own.names.items()}
        if self.own.casts:
            own = self._rest(own, next(iter(values.values())).dtype) | own
        with self._under(values, frame), _seeded(frame), self._kept(values, frame, own):
            return self._logits(functional_call(self.model, own, (), dict(inputs)))

    @contextmanager
    def _under(self, values: Tree, frame: Frame) -> Iterator[None]:
        """Hooks read these, and the model's own dropout is on where the frame brings draws."""
        noisy = () if self.own is None or frame.generators is None else self.own.noisy
        self._values, self._frame = values, frame
        for module in noisy:
            module.training = True
        try:
            yield
        finally:
            self._values, self._frame = {}, None
            for module in noisy:
                module.training = False

    def _kept(
        self, values: Tree, frame: Frame, own: Tree | None = None
    ) -> AbstractContextManager[None]:
        """What a forward pass keeps for backward: all, or what blocks read."""
        if not self.blocks or not torch.is_grad_enabled():
            return nullcontext()

        def again() -> AbstractContextManager[None]:
            draws = frame.generators and tuple(one.clone_state() for one in frame.generators)
            return self._under(values, replace(frame, generators=draws))

        return recomputed(self.blocks, again, *(() if own is None else (lent(self.model, own),)))

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
def _seeded(frame: Frame) -> Iterator[None]:
    """A model's own dropout reads the global generator; lend it the client's."""
    if frame.generators is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(frame.generators[0].initial_seed())
        yield
