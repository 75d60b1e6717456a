"""Which of PEFT's adapters train here, and why others do not; PEFT itself is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

__all__ = ["PEFT_METHODS", "REFUSED", "PeftMethod"]

PeftMethod = Literal[
    "adalora", "adamss", "beft", "boft", "c3a", "deft", "delora", "dora", "fourierft", "frod",
    "glora", "gralora", "hira", "hra", "lily", "ln_tuning", "loha", "lokr", "miss", "oft",
    "peanut", "psoft", "pvera", "randlora", "road", "shira", "supertuning", "tinylora",
    "trainable_tokens", "unilora", "vblora", "vera", "waveft",
]  # fmt: skip
"""PEFT's types in lower case; dora is its LoRA with `use_dora`."""

PEFT_METHODS: frozenset[str] = frozenset(get_args(PeftMethod))

_INPUTS = (
    "it puts virtual tokens before a model's inputs instead of adapting its modules, which this "
    "version does not train; use lora, bottleneck or ia3"
)

REFUSED: Mapping[str, str] = {
    "adaption_prompt": _INPUTS,
    "cartridge": _INPUTS,
    "cpt": _INPUTS,
    "multitask_prompt_tuning": _INPUTS,
    "osf": "it takes the base's own weights apart and projects gradients while it trains, which "
    "clients that share one frozen base cannot do; use layers or lora",
    "p_tuning": _INPUTS,
    "poly": "it needs the number of a task beside every row; use lora",
    "prefix_tuning": _INPUTS,
    "prompt_tuning": _INPUTS,
    "shadow": "it runs a second model beside the base; use lora",
    "xlora": "it mixes adapters that were trained before, in two passes over every batch; use lora",
}
"""Why the other types of PEFT are refused."""
