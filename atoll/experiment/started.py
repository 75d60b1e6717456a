"""The first state of a run that goes on from an adapter which was trained before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll.adapters.build import Built
from atoll.adapters.stored import check_stored, stored_values
from atoll.config import Experiment
from atoll.config.peft_methods import PEFT_METHODS
from atoll.config.words import shown
from atoll.core import State
from atoll.errors import DataError, ModelError
from atoll.models.base import Base
from atoll.models.locate import fingerprint
from atoll.tree import Tree

__all__ = ["started_from"]

_ASIDE = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out",
    "feedforward_modules", "inference_mode", "layers_pattern", "layers_to_transform",
    "modules_to_save", "peft_version", "rank_pattern", "revision", "target_modules", "task_type",
})  # fmt: skip
"""Of PEFT's configuration: what names and shapes tell, or what changes no number."""


def started_from(
    experiment: Experiment,
    state: State,
    base: Base,
    built: Built,
    labels: Sequence[str] | None,
    *,
    note: Callable[[str], None],
) -> State:
    """The state with the values of `adapter.name_or_path`, where the file names one.

    A head comes along where the folder has one; else it starts as it was made.

    Raises:
        ModelError: when there is no adapter, or it is not for this model and these settings.
        DataError: when its head is for other labels.
    """
    if experiment.adapter.name_or_path is None:
        return state
    folder = Path(experiment.adapter.name_or_path).expanduser()
    config = _facts(folder / "adapter_config.json")
    facts = _facts(folder / "atoll.json")
    if config is None and facts is None:
        raise ModelError(
            f"adapter.name_or_path is {folder}, which holds no adapter; name a folder with an "
            "adapter_config.json, as PEFT writes it, or the adapter/ of a run"
        )
    _check_settings(experiment, built, folder, config, facts)
    values = stored_values(base, built.peft, folder)
    head = dict(state.get("head", {}))
    if not head.keys() & values.keys():
        head = {}
    elif facts is not None:
        _check_labels(folder, facts.get("labels"), labels)
    like = {**state.get("adapter", {}), **head}
    told = {**(facts or {}), **(config or {})}
    other = _other_base(experiment, base, told)
    _check_values(values, like, folder, base.source.hub_id, other)
    _tell_base(base, folder, told.get("base_fingerprint"), other, note=note)
    found = {name: values[name].to(value.dtype) for name, value in like.items()}
    return {
        part: {name: found.get(name, value) for name, value in tree.items()}
        if part in ("adapter", "head")
        else tree
        for part, tree in state.items()
    }


def _check_values(values: Tree, like: Tree, folder: Path, own: str, other: str | None) -> None:
    """Refuse values that do not fit, and say on which base they were trained."""
    try:
        check_stored(values, like, folder, model=own)
    except ModelError as error:
        made = "" if other is None else f"; what is in the folder was trained on {other}"
        raise ModelError(f"{error}{made}") from None


def _tell_base(
    base: Base, folder: Path, mark: str | None, other: str | None, *, note: Callable[[str], None]
) -> None:
    """Say so where the adapter was trained on another base, by its weights, else by its name."""
    own = base.source.hub_id
    if mark is not None and mark != fingerprint(base.backbone):
        note(f"the adapter in {folder} was trained on other weights than those of {own}; it goes "
             "on from there on these")  # fmt: skip
    if mark is None and other is not None:
        note(f"the adapter in {folder} says that it is for {other}; it goes on from there on {own}")


def _other_base(experiment: Experiment, base: Base, told: Mapping[str, Any]) -> str | None:
    """The base that an adapter's folder names, where it is not this experiment's."""
    named: str | None = told.get("base_model_name_or_path") or told.get("base_model")
    known = (base.source.hub_id, base.source.path, experiment.model.name_or_path)
    return None if named in known else named


def _check_labels(folder: Path, theirs: Any, labels: Sequence[str] | None) -> None:
    """Refuse a head for other labels."""
    if theirs is not None and labels is not None and list(theirs) != list(labels):
        raise DataError(
            f"adapter.name_or_path is {folder}, whose head tells apart {shown(theirs)}, and the "
            f"rows here have the labels {shown(list(labels))}; set data.labels to the former"
        )


def _facts(file: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file."""
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} is not what describes an adapter")
    return found


def _check_settings(
    experiment: Experiment,
    built: Built,
    folder: Path,
    config: Mapping[str, Any] | None,
    facts: Mapping[str, Any] | None,
) -> None:
    """Refuse values that would mean something else under the experiment's settings."""
    method, kind = experiment.adapter.method, (facts or {}).get("method")
    if config is None and kind != method:
        raise ModelError(
            f"adapter.name_or_path is {folder}, which holds an adapter of method {kind}, and "
            f"adapter.method is {method}; set it to {kind}"
        )
    if config is None:
        return
    if built.peft is None:
        raise ModelError(
            f"adapter.name_or_path is {folder}, which holds {config.get('peft_type')} of PEFT, "
            f"and adapter.method is {method}; set adapter.method to what the folder holds"
        )
    plain = json.loads(json.dumps(built.peft.config().to_dict(), default=sorted))
    odd = [
        key
        for key, own in plain.items()
        if not (key in _ASIDE or key.startswith("init_") or "dropout" in key)
        and config.get(key, own) != own
    ]
    if odd:
        theirs, own = (
            ", ".join(f"{key}: {shown(values[key])}" for key in odd) for values in (config, plain)
        )
        where = "adapter.config" if method in PEFT_METHODS else "adapter"
        raise ModelError(
            f"{folder}/adapter_config.json has {theirs}, and this experiment {own}: the values "
            f"would mean something else; set what the former says under {where}"
        )
