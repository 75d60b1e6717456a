"""The transformer blocks of a model, and where their two parts end, whatever its family."""

from __future__ import annotations

from torch import nn

from atoll.adapters.site import fan
from atoll.errors import ModelError

__all__ = ["attention_outputs", "block_lists", "feedforward_outputs"]


def block_lists(model: nn.Module) -> list[list[str]]:
    """Names of the blocks, one list for each stack of them (an encoder has one, CLIP has two).

    A stack is a list of modules of which each holds linear layers, and which is in no other stack.
    """
    found: list[list[str]] = []
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or name.startswith(inside or "\0"):
            continue
        if len(module) and all(_linear_layers(block) for block in module):
            found.append([f"{name}.{place}" for place in range(len(module))])
            inside += (f"{name}.",)
    return found


def feedforward_outputs(model: nn.Module) -> list[str]:
    """The last linear layer of each block, which adds to what the block passes on.

    Raises:
        ModelError: when a block is not attention and then linear layers.
    """
    return [_ends(model, block)[1] for blocks in block_lists(model) for block in blocks]


def attention_outputs(model: nn.Module) -> list[str]:
    """The last linear layer of each block's first part, its attention.

    Raises:
        ModelError: when a block is not attention and then linear layers.
    """
    return [_ends(model, block)[0] for blocks in block_lists(model) for block in blocks]


def _ends(model: nn.Module, block: str) -> tuple[str, str]:
    """Where attention and feed-forward part of a block end."""
    name, module = block, model.get_submodule(block)
    parts = _parts(module)
    # ALBERT and T5 keep the parts of a block in lists inside it.
    while len(parts) == 1 and nn.ModuleList in (
        type(module), type(inner := module.get_submodule(parts[0][0])),
    ):  # fmt: skip
        name, module = f"{name}.{parts[0][0]}", inner
        parts = _parts(module)
    ends = [".".join(filter(None, (name, part, layers[-1]))) for part, layers in parts]
    shapes = [fan(model.get_submodule(end)) for end in ends]
    if len(ends) < 2 or not shapes[0] or not shapes[-1] or shapes[0][1] != shapes[-1][1]:
        raise ModelError(
            f"{block} is not attention and then linear layers of the same width, as far as its "
            "modules tell; name the modules in adapter.target_modules"
        )
    return ends[0], ends[-1]


def _parts(module: nn.Module) -> list[tuple[str, list[str]]]:
    """Children that hold linear layers, with the names of those inside them."""
    found = ((name, _linear_layers(child)) for name, child in module.named_children())
    return [(name, layers) for name, layers in found if layers]


def _linear_layers(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_modules() if fan(child)]
