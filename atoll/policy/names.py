"""Which tensors a site lets leave, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from atoll.config.peft_methods import PEFT_METHODS

__all__ = ["EVERYTHING", "GROUPS", "STATISTICS", "may_leave"]

EVERYTHING = "*"
STATISTICS = "statistics"

_INSIDE = "base_model.model."
"""What stands before a model's own names in a file of PEFT's."""
_BACKBONE = "backbone."
"""What Atoll puts before them where the head is its own."""

# PEFT begins the names of an adapter's tensors with its type, but for these. Which single tokens
# changed tells which words a site has: those are left to the site's own patterns.
_ADAPTERS = {"lora", "ia3", "hada", "adapter", *PEFT_METHODS} - {"trainable_tokens"}

GROUPS = {
    "adapters": tuple(f"*.{name}_*" for name in sorted(_ADAPTERS)),
    "biases": ("*.bias",),
    "blocks": tuple(f"*.{'[0-9]' * digits}.*" for digits in (1, 2, 3)),
    "heads": (
        "classifier.*",
        "score.*",
        "pre_classifier.*",
        "pooler.*",
        "*.pooler.*",
        "log_scale.*",
    ),
    STATISTICS: ("statistics.*",),
}
"""What a word of the policy stands for. No group holds a model's embeddings: a full model has some,
and never leaves by groups alone."""


def may_leave(name: str, patterns: Sequence[str], *, channel: str = "") -> bool:
    """Whether a tensor matches a pattern or a group; what a stage packed counts as what it was.

    Those of head statistics are called `statistics.sum` and the like. An adapter's have the name
    that PEFT's file gives them, too.
    """
    # A stage puts places and scales beside a tensor; no torch module has a colon in its name.
    name = name.partition(":")[0]
    if channel == STATISTICS:
        name = f"{STATISTICS}.{name}"
    names = [name]
    if _matches(name, GROUPS["adapters"]):
        names.append(_INSIDE + name.removeprefix(_BACKBONE))
    return any(_matches(one, GROUPS.get(pattern, (pattern,))) for pattern in patterns
               for one in names)  # fmt: skip


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
