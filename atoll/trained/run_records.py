"""The files that a run left beside its adapter, read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from atoll.errors import RunError
from atoll.trained.load_run import TrainedRun
from atoll.trained.model_card import Told, card

__all__ = ["card_of", "read_json", "read_yaml"]


def card_of(run: TrainedRun, *, merged: bool, lines: str, checked: str) -> str:
    """The model card of what was exported from a run.

    Raises:
        RunError: when a file of the run is damaged, or of another version.
    """
    peft = (run.path / "adapter" / "adapter_config.json").exists()
    library = "peft" if peft and not merged else "transformers"
    if merged and run.setup.base.pooling is not None:
        library = "sentence-transformers"
    told = Told(
        experiment=read_yaml(run.path / "experiment.yaml"),
        record=read_json(run.path / "run.json"),
        summary=read_json(run.path / "summary.json"),
        source=run.setup.base.source,
        library=library,
        merged=merged,
        lines=lines,
        checked=checked,
    )
    try:
        return card(told)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(
            f"{run.path}: its files have another form than this version writes ({error!r}); run "
            "the experiment again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RunError: when it cannot be read or is none.
    """
    return _object(path, json.loads)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        RunError: when it cannot be read or is none.
    """
    return _object(path, yaml.safe_load)


def _object(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        return dict(parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read: {error}; run the experiment again") from error
