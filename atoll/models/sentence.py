"""How a sentence encoder makes a vector of a text, as sentence-transformers wrote it down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from atoll.errors import ModelError
from atoll.models.locate import Source, find_file
from atoll.models.pooling import Pooling

__all__ = ["Asked", "pooling_of", "sentence_pooling"]

Asked = Literal["auto", "mean", "cls", "last", "model"]
"""What model.pooling says."""


def pooling_of(
    source: Source, pooling: Asked, normalize: bool | None
) -> tuple[Pooling | None, bool]:
    """Pooling and normalisation: what was asked, else what the sentence encoder was trained with.

    None means the Auto class's own head. Reads the files that sentence-transformers writes
    (modules.json and the pooling module's config.json).
    """
    trained = _trained(source)
    chosen = trained.pooling if pooling == "auto" else pooling
    if chosen == "model":
        chosen = None
    return chosen, trained.normalize if normalize is None else normalize


def sentence_pooling(
    source: Source, pooling: Asked, normalize: bool | None
) -> tuple[Pooling, bool]:
    """The same for vectors of texts; the normalised mean where the model does not say.

    Raises:
        ModelError: for a sentence encoder with parts that are not here, unless pooling is given.
    """
    if pooling == "model":
        raise ModelError(
            "model.pooling is model, but a vector of a text needs a rule; use mean, cls or last"
        )
    trained = _trained(source)
    if pooling != "auto":
        return pooling, trained.normalize if normalize is None else normalize
    if trained.others:
        raise ModelError(
            f"{source.hub_id} makes its vectors with {' and '.join(trained.others)}, which Atoll "
            "leaves out; set model.pooling to mean, cls or last to train without"
        )
    if trained.pooling is None:
        return "mean", normalize is not False
    return trained.pooling, trained.normalize if normalize is None else normalize


@dataclass(frozen=True)
class _Trained:
    """What a sentence encoder's files say; others: parts that are not known here."""

    pooling: Pooling | None = None
    normalize: bool = False
    others: tuple[str, ...] = ()


_MODES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


def _trained(source: Source) -> _Trained:
    try:
        listed = find_file(source, "modules.json")
        if listed is None:
            return _Trained()
        modules = json.loads(listed.read_text())
        kinds = {str(m["type"]).rsplit(".", 1)[-1]: str(m["path"]) for m in modules}
        found = find_file(source, f"{kinds['Pooling']}/config.json")
        modes = _pooling_modes(json.loads(found.read_text())) if found is not None else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{source.hub_id}: modules.json cannot be read as a sentence encoder's ({error!r}); "
            "set model.pooling to mean, cls or model"
        ) from error
    others = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    pooling = _MODES.get(modes[0]) if len(modes) == 1 else None
    if pooling is None:
        others.append(f"pooling {' and '.join(modes) or 'of no kind'}")
    return _Trained(pooling, "Normalize" in kinds, tuple(others))


def _pooling_modes(settings: dict[str, Any]) -> list[str]:
    """Version 6 writes pooling_mode: mean, or a list; older ones a switch for each kind."""
    named = settings.get("pooling_mode")
    if named is not None:
        return [named] if isinstance(named, str) else list(named)
    old = "pooling_mode_"
    return [
        key.removeprefix(old).removesuffix("_tokens").removesuffix("_token")
        for key, value in settings.items()
        if key.startswith(old) and value
    ]
