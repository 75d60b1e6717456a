"""Which modules an adapter goes to: PEFT's rules for `target_modules`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from torch import nn
from transformers.pytorch_utils import Conv1D

from atoll.adapters.site import fan
from atoll.errors import ModelError
from atoll.models.base import Base

__all__ = [
    "bias_modules",
    "by_pattern",
    "in_layers",
    "linear_fans",
    "linear_targets",
    "matching",
    "output_embedding",
    "spared",
    "transposed",
]


T = TypeVar("T")


def linear_targets(
    model: nn.Module, target_modules: str | Sequence[str], *, leave_out: Sequence[str]
) -> list[str]:
    """Linear layers that match: `all-linear`, a regular expression, or names (suffixes).

    leave_out: the head and the output embedding, which all-linear does not mean.

    Raises:
        ModelError: when nothing matches; names what there is.
    """
    linear = [name for name, module in model.named_modules() if fan(module)]
    if target_modules == "all-linear":
        return [name for name in linear if name not in leave_out]
    if isinstance(target_modules, str):
        found = matching(linear, target_modules, key="adapter.target_modules")
        missing = [] if found else [target_modules]
    else:
        hits = {target: matching(linear, [target], key="") for target in target_modules}
        found = [name for name in linear if any(name in names for names in hits.values())]
        missing = [target for target, names in hits.items() if not names]
    if missing or not found:
        raise ModelError(_nothing_matches(missing, linear))
    return found


def matching(names: Sequence[str], rule: str | Sequence[str], *, key: str) -> list[str]:
    """Names that a regular expression describes whole, or that end in one of several names.

    Raises:
        ModelError: when the rule, which stands at `key`, is no regular expression.
    """
    if not isinstance(rule, str):
        endings = tuple(f".{target}" for target in rule)
        return [name for name in names if name in rule or name.endswith(endings)]
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ModelError(f"{key} '{rule}' is no regular expression: {error}") from None
    return [name for name in names if pattern.fullmatch(name)]


def in_layers(
    names: Sequence[str], layers: int | Sequence[int], pattern: str | Sequence[str] | None
) -> list[str]:
    """Names whose first number is one of `layers`, as PEFT counts `layers_to_transform`.

    pattern: what may stand before that number (None: anything).

    Raises:
        ModelError: when a layer holds none of the names.
    """
    wanted = {layers} if isinstance(layers, int) else set(layers)
    lists = [r"[^.]*"] if not pattern else [pattern] if isinstance(pattern, str) else pattern
    rules = [re.compile(rf"(?:^|.*?\.){one}\.(\d+)\.") for one in lists]
    places = {
        name: next((int(hit[1]) for rule in rules if (hit := rule.match(name))), None)
        for name in names
    }
    there = {place for place in places.values() if place is not None}
    if wanted - there:
        says = f"layers {min(there)} to {max(there)}" if there else "no layers with a number"
        hint = "" if pattern is None else f" under adapter.layers_pattern {pattern}"
        raise ModelError(
            f"adapter.layers_to_transform names layer {min(wanted - there)}, but the target "
            f"modules are in {says}{hint}; name layers that are there"
        )
    return [name for name in names if places[name] in wanted]


def by_pattern(
    names: Sequence[str], patterns: Mapping[str, T], otherwise: T, *, key: str
) -> dict[str, T]:
    """For each name what the first pattern that describes its end says, as PEFT's `rank_pattern`.

    Raises:
        ModelError: when a pattern, which stands at `key`, describes none of the names.
    """
    rules = {pattern: re.compile(rf"(?:.*\.)?(?:{pattern})$") for pattern in patterns}
    for pattern, rule in rules.items():
        if not any(map(rule.match, names)):
            raise ModelError(
                f"{key} names {pattern}, which none of the target modules is called; there are "
                f"{', '.join(sorted({name.rpartition('.')[2] for name in names}))}"
            )
    return {
        name: next((patterns[p] for p, rule in rules.items() if rule.match(name)), otherwise)
        for name in names
    }


def _nothing_matches(missing: Sequence[str], linear: Sequence[str]) -> str:
    leaves = sorted({name.rsplit(".", 1)[-1] for name in linear})
    near = difflib.get_close_matches(missing[0], leaves, n=1) if missing else []
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return (
        f"adapter.target_modules {', '.join(map(repr, missing)) or '[]'} matches no linear layer "
        f"of the model{hint} Its linear layers end in: {', '.join(leaves)}"
    )


def bias_modules(model: nn.Module, *, leave_out: Sequence[str]) -> list[str]:
    """Modules with a bias of their own."""
    return [
        name
        for name, module in model.named_modules()
        if name not in leave_out and module._parameters.get("bias") is not None
    ]


def linear_fans(
    base: Base, found: Sequence[str], *, leave_out: Collection[str]
) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of layers that the backbone's names tell, under the model's names."""
    fans: dict[str, tuple[int, int]] = {}
    for name in (base.prefix + name for name in found):
        shape = fan(base.model.get_submodule(name))
        assert shape is not None, f"{name} is not linear"
        if name not in leave_out:
            fans[name] = shape
    return fans


def spared(base: Base, heads: Sequence[str]) -> list[str]:
    """Layers that all-linear does not mean, as the backbone names them."""
    return [name.removeprefix(base.prefix) for name in (*heads, *output_embedding(base))]


def output_embedding(base: Base) -> list[str]:
    """The layer of a language model that gives the logits; none where a head does."""
    if base.head is not None:
        return []
    output = base.backbone.get_output_embeddings()  # type: ignore[operator]
    return [name for name, module in base.model.named_modules() if module is output]


def transposed(base: Base, targets: Sequence[str]) -> bool:
    """Whether layers store their weights as GPT-2 does."""
    return any(isinstance(base.model.get_submodule(name), Conv1D) for name in targets)
