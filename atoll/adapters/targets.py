"""Which modules an adapter goes to: PEFT's rules for `target_modules`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from torch import nn

from atoll.adapters.site import fan
from atoll.errors import ModelError

__all__ = ["bias_modules", "linear_targets"]


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
        try:
            pattern = re.compile(target_modules)
        except re.error as error:
            raise ModelError(
                f"adapter.target_modules '{target_modules}' is no regular expression: {error}"
            ) from None
        found = [name for name in linear if pattern.fullmatch(name)]
        missing = [] if found else [target_modules]
    else:
        hits = {
            target: [name for name in linear if name == target or name.endswith(f".{target}")]
            for target in target_modules
        }
        found = [name for name in linear if any(name in names for names in hits.values())]
        missing = [target for target, names in hits.items() if not names]
    if missing or not found:
        raise ModelError(_nothing_matches(missing, linear))
    return found


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
