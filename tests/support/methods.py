"""Every method of adapting, with settings that fit tiny models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.config.peft_methods import PEFT_METHODS

__all__ = ["STACKED", "TUNERS", "fits"]

STACKED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "bert-pfeiffer": ("bert", {"method": "bottleneck", "reduction_factor": 4}),
    "bert-houlsby": (
        "bert",
        {"method": "bottleneck", "placement": "houlsby", "reduction_factor": 8,
         "activation": "gelu"},
    ),
    "gpt2-houlsby": (
        "gpt2",
        {"method": "bottleneck", "placement": "houlsby", "reduction_factor": 3,
         "activation": "silu"},
    ),
    "llama-named": (
        "llama",
        {"method": "bottleneck", "target_modules": ("up_proj",), "reduction_factor": 7,
         "activation": "tanh"},
    ),
    "bert-ia3": ("bert", {"method": "ia3"}),
    "gpt2-ia3": ("gpt2", {"method": "ia3"}),
    "llama-ia3": ("llama", {"method": "ia3"}),
    "bert-layers": ("bert", {"method": "layers", "num_layers": 1}),
    "gpt2-layers": ("gpt2", {"method": "layers", "num_layers": 2}),
    "llama-layers": ("llama", {"method": "layers", "num_layers": 1}),
    "llama-lora-layer": (
        "llama", {"r": 3, "layers_to_transform": 1, "target_modules": ("q_proj", "down_proj")},
    ),
}  # fmt: skip
"""Methods whose clients share a forward pass: a model, and the adapter's section."""

_SMALL: Mapping[str, dict[str, Any]] = {
    "adalora": {"init_r": 4, "target_r": 2, "lora_alpha": 5},
    "adamss": {"r": 8, "num_subspaces": 2, "subspace_rank": 1},
    "c3a": {"block_size": 8},
    "dora": {"r": 3, "lora_alpha": 5},
    "fourierft": {"n_frequency": 20},
    "miss": {"r": 4},
    "pvera": {"r": 8},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "unilora": {"theta_d_length": 50},
    "vblora": {"vector_length": 8, "num_vectors": 16},
    "vera": {"r": 8},
    "waveft": {"n_frequency": 20},
}

TUNERS: Mapping[str, dict[str, Any]] = {
    method: {"method": method, "config": _SMALL.get(method, {})} for method in sorted(PEFT_METHODS)
}
"""PEFT's methods: the adapter's section."""

_NO_CONV1D = {
    "adamss", "beft", "boft", "c3a", "delora", "glora", "hra", "lily", "loha", "lokr", "miss",
    "oft", "peanut", "psoft", "road", "shira", "supertuning",
}  # fmt: skip
_TOKENS = {True: [5, 6, 7, 8, 9, 10], False: list(range(65, 91))}
_UNUSUAL = {"bert": {"ln_tuning": ["LayerNorm"]}}


def fits(method: str, kind: str) -> dict[str, Any] | None:
    """The section of one of PEFT's methods for a model; None where PEFT cannot adapt it."""
    if kind == "gpt2" and method in _NO_CONV1D:
        return None
    if method == "trainable_tokens":
        # Words of BERT's, letters of the others'.
        return {"method": method, "config": {"token_indices": _TOKENS[kind == "bert"]}}
    targets = _UNUSUAL.get(kind, {}).get(method)
    named = {} if targets is None else {"target_modules": targets}
    section = TUNERS[method]
    return {**section, "config": {**section["config"], **named}}
