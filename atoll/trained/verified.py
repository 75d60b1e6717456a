"""An exported folder is loaded back, and says what the trained model says, or is no export."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from atoll.disk.files import write_json
from atoll.disk.folder import MARK
from atoll.errors import ModelError
from atoll.models.objective import Batch
from atoll.trained.load_run import TrainedRun
from atoll.trained.merge import dress, in_full, merged_into, set_dtype, widen, with_head
from atoll.trained.merged_folder import read_back, write_merged
from atoll.trained.outputs import Gap, gap_between, outputs_of
from atoll.trained.quantised import is_quantised, restore_conv1d, was_conv1d
from atoll.trained.run_records import read_json

__all__ = ["EXACT", "QUANTISED", "ROUNDED", "Verified", "verified_copy", "verified_merge"]

# Largest differences of outputs, as shares of the largest output.
EXACT = 1e-4
"""Of the same weights in float32 arithmetic."""
ROUNDED = 0.1
"""Of weights that were rounded to bfloat16, in float32 arithmetic."""
QUANTISED = 0.25
"""Of a quantised model and its plain weights: it rounds what goes into each layer, too."""


@dataclass(frozen=True)
class Verified:
    """How far the outputs of what was read back are from the trained model's, in float32.

    quantised: how far those, on plain weights, are from what a quantised model computes.
    """

    gap: Gap
    tolerance: float
    quantised: Gap | None = None


def verified_merge(
    run: TrainedRun,
    batches: Sequence[Batch],
    folder: Path,
    *,
    dtype: torch.dtype,
    tolerance: float | None,
) -> Verified:
    """Merge, write, read back; the outputs of each step are compared with the trained model's.

    The run's model is used up: its weights become the merged ones, and are gone once written.

    Raises:
        ModelError: when they differ more than they may, or the adapter has no place in the weights.
    """
    base, adapter = run.setup.base, run.path / "adapter"
    quantised, transposed, before = None, was_conv1d(base.backbone), None
    if is_quantised(base.backbone):
        before = outputs_of(run.setup.bench.model, run.values, batches)
    full = in_full(run)
    trained = outputs_of(full, run.values, batches)
    full.close()
    if before is not None:
        quantised = gap_between(before, trained)
        limit = _limit(tolerance, QUANTISED)
        _refuse_beyond(quantised, limit, "the base model, dequantised, is another one")
    backbone = merged_into(base, adapter)
    restore_conv1d(backbone, transposed)
    merged = with_head(base, backbone, adapter)
    gap = gap_between(trained, outputs_of(merged, {}, batches))
    _refuse_beyond(
        gap, _limit(tolerance, EXACT), "the adapter could not be merged into the weights"
    )
    set_dtype(backbone, dtype)
    write_merged(run, backbone, folder)
    write_json(folder / MARK, {**read_json(adapter / MARK), "merged": True})
    limit = _limit(tolerance, ROUNDED if dtype.itemsize < 4 else EXACT)
    gap = gap_between(trained, outputs_of(read_back(run, folder), {}, batches))
    _refuse_beyond(gap, limit, "the merged model, read back, is not the trained one")
    return Verified(gap, limit, quantised)


def verified_copy(
    run: TrainedRun, batches: Sequence[Batch], folder: Path, *, tolerance: float | None
) -> Verified:
    """Copy the adapter, and load it from there onto the run's own base model.

    Raises:
        ModelError: when outputs then differ more than they may.
    """
    base, stacked = run.setup.base, run.setup.bench.model
    # A quantised model stays one, and rounds what goes into its layers.
    limit = _limit(tolerance, ROUNDED if is_quantised(base.backbone) else EXACT)
    if not is_quantised(base.backbone):
        widen(base.backbone)
    trained = outputs_of(stacked, run.values, batches)
    shutil.copytree(run.path / "adapter", folder, dirs_exist_ok=True)
    stacked.close()
    gap = gap_between(trained, outputs_of(dress(run.setup, folder), {}, batches))
    _refuse_beyond(gap, limit, "the adapter, loaded without Atoll, is not the trained model")
    return Verified(gap, limit)


def _refuse_beyond(gap: Gap, tolerance: float, what: str) -> None:
    if not gap.within(tolerance):
        raise ModelError(
            f"{what}: outputs differ by up to {gap.difference:.3g} where the largest is "
            f"{gap.largest:.3g}, {gap.relative:.2g} of it on {gap.rows} rows, and the tolerance is "
            f"{tolerance:g}. Nothing was written; --tolerance allows more"
        )


def _limit(tolerance: float | None, usual: float) -> float:
    return usual if tolerance is None else tolerance
