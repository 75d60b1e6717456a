"""Settings of an adapter of PEFT, checked against PEFT's own configuration class."""

from __future__ import annotations

import dataclasses
import json
import typing
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from atoll.config.checks import Problem
from atoll.config.words import did_you_mean, expected, shown

__all__ = ["check_peft_config", "peft_config"]

_SET = "Atoll sets it"
_OURS: Mapping[str, str] = {
    "auto_mapping": _SET,
    "base_model_name_or_path": _SET,
    "bias": "biases beside an adapter are not trained; adapter.method: bitfit trains biases",
    "fan_in_fan_out": _SET,
    "inference_mode": _SET,
    "modules_to_save": "only the head trains whole beside an adapter (adapter.head)",
    "peft_type": _SET,
    "peft_version": _SET,
    "revision": _SET,
    "task_type": _SET,
    "use_dora": _SET,
}
"""What PEFT's classes hold and the file may not set, and why."""

_DORA = (
    "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "use_rslora",
    "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
    "lora_bias",
)  # fmt: skip
_ADALORA = (
    "target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight",
    "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "init_lora_weights",
    "layers_to_transform", "layers_pattern",
)  # fmt: skip
_CHOSEN: Mapping[str, tuple[str, ...]] = {"adalora": _ADALORA, "dora": _DORA}
"""PEFT's LoRA has many more settings, for uses of their own."""

_UNFIT: Mapping[tuple[str, str], str] = {
    ("adalora", "total_step"): "its steps are rounds here (federation.num_rounds)",
    ("adamss", "use_asa"): "it chooses subspaces by calls in the middle of one training",
    ("frod", "runtime_offload_base_weight"): "all clients share the base's weights",
    ("oft", "coft"): "it changes the trained values whenever they are read",
    ("pvera", "generator_seed"): "Atoll seeds each client's draws",
    ("pvera", "sample_at_inference"): "a model that is measured must not draw",
    ("vblora", "save_only_topk_weights"): "such a file cannot be trained or averaged again",
}
_FIXED: Mapping[str, Mapping[str, Any]] = {
    "dora": {"use_dora": True},
    "frod": {"progressbar": False},
}
_MANY = 10**9
_STARTS = (True, False, "gaussian", "orthogonal")


def peft_config(
    method: str, settings: Mapping[str, JsonValue], *, rounds: int | None = None
) -> Any:
    """PEFT's configuration object.

    rounds: of the run, for a method whose ranks change in its course; None: it is not known yet.

    Raises:
        TypeError, ValueError: when PEFT refuses the settings.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fixed = dict(_FIXED.get(method, {}))
        if method == "adalora":
            fixed["total_step"] = rounds or _MANY
        return _config_class(method)(**{**settings, **fixed})


def check_peft_config(method: str, settings: Mapping[str, JsonValue]) -> Iterator[Problem]:
    """Keys and values that PEFT's class does not have, or that do not fit a federation."""
    kinds = typing.get_type_hints(_config_class(method))
    fields = [field.name for field in dataclasses.fields(_config_class(method))]
    valid = [
        name
        for name in _CHOSEN.get(method, fields)
        if name not in _OURS and (method, name) not in _UNFIT
    ]
    found = [
        Problem(f"adapter.config.{name}", sentence)
        for name, value in settings.items()
        if (sentence := _wrong(method, name, value, kinds=kinds, valid=valid))
    ]
    if method == "trainable_tokens" and not settings.get("token_indices"):
        found.append(
            Problem(
                "adapter.config",
                "adapter.config.token_indices is missing: trainable_tokens trains the embeddings "
                "of the tokens that it names, as {token_indices: [5, 6]}",
            )
        )
    yield from found
    if found:
        return
    try:
        peft_config(method, settings)
    except (TypeError, ValueError) as error:
        told = " ".join(str(error).split())
        yield Problem("adapter.config", f"adapter.config: {method} of PEFT refuses it: {told}")


def _wrong(
    method: str, name: str, value: JsonValue, *, kinds: Mapping[str, Any], valid: list[str]
) -> str | None:
    path = f"adapter.config.{name}"
    reason = _OURS.get(name, _UNFIT.get((method, name)))
    if name in kinds and reason is not None:
        return f"{path} cannot be set: {reason}; remove it"
    if name not in valid:
        near = did_you_mean(name, among=valid) or "."
        return f'unknown setting "{name}" of {method}{near} Valid: {", ".join(valid)}'
    if name == "init_lora_weights" and value not in _STARTS:
        return (
            f"{path} is {shown(value)}: it would change the base's own weights or needs rows "
            "to start from; use true, gaussian or orthogonal"
        )
    kind = TypeAdapter(kinds[name])
    try:
        kind.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return f"{path} is {shown(value)}; expected {expected(_in_order(kind.json_schema()))}"
    return None


def _in_order(schema: dict[str, Any]) -> dict[str, Any]:
    """Its alternatives in one order: Python's own depends on which equal union it met first."""
    if "anyOf" not in schema:
        return schema
    order = ("boolean", "integer", "number", "string", "array", "object", "null")
    kinds = {name: place for place, name in enumerate(order)}
    return {"anyOf": sorted(schema["anyOf"], key=lambda one: kinds.get(one.get("type"), 0))}


def _config_class(method: str) -> Any:
    # Heavy, and needed only where the file names such a method.
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = "LORA" if method == "dora" else method.upper()
    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
