"""A finished run as a folder for others, verified before it is there: adapter or merged model.

found = export_run(Path("runs/finetune"), Path("merged"), Terms(merge=True), note=print)
found.verified.gap.relative
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from atoll.artifacts.card import loading_lines
from atoll.disk.files import write_text
from atoll.disk.folder import free_place, new_folder
from atoll.errors import DataError, ModelError, RunError
from atoll.tasks.text import model_dtype
from atoll.trained.load_run import TrainedRun, load_run
from atoll.trained.merged_folder import merged_lines
from atoll.trained.outputs import batches_to_compare
from atoll.trained.run_records import card_of, read_yaml
from atoll.trained.verified import Verified, verified_copy, verified_merge

__all__ = ["Exported", "Terms", "export_run"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Terms:
    """What an export should be.

    tolerance: of the outputs, as a share of the largest; None: as the precision demands.
    dtype: of a merged model; None: what the trained model computes in.
    force: replace an earlier export.
    """

    merge: bool = False
    tolerance: float | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    force: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was verified.

    made_up: whether outputs were compared on made-up rows alone.
    """

    path: Path
    dtype: str
    verified: Verified
    made_up: bool
    bytes: int


def export_run(path: Path, output: Path, terms: Terms, *, note: Callable[[str], None]) -> Exported:
    """Write the folder beside its place, compare it with the trained model, and put it there.

    Raises:
        RunError: when the run is not finished, or the folder cannot be there.
        ModelError: when it would not say what the trained model says; nothing is written then.
    """
    place = free_place(output, force=terms.force)
    if terms.merge:
        _check_mergeable(path / "experiment.yaml")
    run, made_up = _opened(path, note)
    _check_apart(place, run)
    batches = batches_to_compare(run.setup, made_up=made_up)
    computes = model_dtype(run.setup.experiment, run.setup.base)
    dtype = computes if terms.dtype is None else _DTYPES[terms.dtype]
    # Verifying changes the model's precision, which the lines name.
    lines = loading_lines(run.setup)
    with new_folder(place) as folder:
        if terms.merge:
            found = verified_merge(run, batches, folder, dtype=dtype, tolerance=terms.tolerance)
            lines = merged_lines(run.setup, dtype)
        else:
            found = verified_copy(run, batches, folder, tolerance=terms.tolerance)
        text = card_of(run, merged=terms.merge, lines=lines, checked=_checked(found))
        write_text(folder / "README.md", text)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Exported(place, str(dtype).removeprefix("torch."), found, made_up, size)


def _check_mergeable(file: Path) -> None:
    """Refuse to merge what stands between layers, before anything is loaded."""
    section = read_yaml(file).get("adapter") if file.is_file() else None
    if isinstance(section, dict) and section.get("method") == "bottleneck":
        raise ModelError(
            "adapter.method is bottleneck, whose layers stand between those of the model: its "
            "weights have no place for them; export without --merge, which writes the layers and, "
            "in README.md, the lines that put them on the model"
        )


def _opened(path: Path, note: Callable[[str], None]) -> tuple[TrainedRun, bool]:
    """The run, with its rows where they are at hand; else a made-up row stands in for them."""
    if _rows_at_hand(path / "experiment.yaml"):
        try:
            return load_run(path, note=note, with_data=True), False
        except DataError as error:
            note(f"the run's rows cannot be read ({error}); made-up ones take their place")
    return load_run(path, note=note), True


def _rows_at_hand(file: Path) -> bool:
    """Whether the data stand on this machine, so that reading them asks nobody."""
    section = read_yaml(file).get("data") if file.is_file() else None
    named = str(section.get("path")) if isinstance(section, dict) else ""
    return named.startswith("builtin:") or bool(named and Path(named).expanduser().exists())


def _check_apart(place: Path, run: TrainedRun) -> None:
    """Refuse a place whose replacement would take the run or its base model away."""
    adapter, base = (run.path / "adapter").resolve(), run.setup.base.source.folder
    lost = {"the run": adapter, "the base model of the run": base and base.resolve()}
    for what, folder in lost.items():
        if folder is not None and folder.is_relative_to(place):
            raise RunError(f"{place} holds {what}; name another place")
    if place.is_relative_to(adapter):
        raise RunError(f"{place} lies in the adapter of the run; name another place")


def _checked(found: Verified) -> str:
    return (
        f"When it was exported, its outputs differed from the trained model's by at most "
        f"{found.gap.relative:.2g} of the largest (tolerance {found.tolerance:g}) on "
        f"{found.gap.rows} rows."
    )
