"""Whether the outputs of a model's frozen blocks are kept, and where."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from atoll.config import Experiment
from atoll.data import FederatedData
from atoll.local.bench import Bench
from atoll.local.boundary import Boundary, find_boundary
from atoll.local.prefix import Prefix, Shelf, disk_shelf, memory_shelf
from atoll.models.locate import fingerprint
from atoll.models.objective import Batch

__all__ = ["prefix_of"]

MEMORY_SHARE, MEMORY_MOST = 0.25, 2 * 2**30
DISK_SHARE, DISK_MOST = 0.25, 20 * 2**30
SAMPLE = 8
"""Clients of which the first rows tell how long rows are."""


def prefix_of(
    experiment: Experiment, bench: Bench, data: FederatedData, probe: Batch
) -> Prefix | None:
    """Of rows that stay as they are, on a model whose lower blocks stay as they are; else None.

    probe: a small batch, which is run once or twice.
    """
    wanted = experiment.train.prefix_cache
    if wanted == "off" or bench.objective.redraw is not None or _recast(bench):
        return None
    probe = probe.to(bench.device)
    boundary = find_boundary(bench.model, probe)
    # What convolutions make of an image is no row of tokens, as it would be kept.
    if boundary is None or boundary.prefix(probe.inputs).dim() != 3:
        return None
    size = _estimate(bench, boundary, data, probe)
    place = Path(experiment.output_dir).expanduser() / "prefix.sqlite"
    shelf = _shelf(wanted, size, place)
    if shelf is None:
        return None
    mark = f"{fingerprint(bench.model.model)} {len(boundary.below)}".encode()
    return Prefix(boundary, bench.objective.collate, shelf, mark)


def _recast(bench: Bench) -> bool:
    """Whether the frozen part computes in another precision while its upper blocks train."""
    return bench.model.own is not None and bench.model.own.casts


def _shelf(wanted: str, size: int, place: Path) -> Shelf | None:
    if wanted == "memory" or (wanted == "auto" and size <= _memory()):
        return memory_shelf()
    if wanted == "disk" or size <= _disk(place):
        return disk_shelf(place)
    return None


def _memory() -> int:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(min(MEMORY_SHARE * free, MEMORY_MOST))


def _disk(place: Path) -> int:
    there = next(each for each in place.absolute().parents if each.exists())
    return int(min(DISK_SHARE * shutil.disk_usage(there).free, DISK_MOST))


def _estimate(bench: Bench, boundary: Boundary, data: FederatedData, probe: Batch) -> int:
    """Bytes of all rows' activations, from the lengths of some."""
    hidden = boundary.prefix(probe.to(bench.device).inputs)
    row = hidden[0, 0].nbytes * hidden.shape[0] // probe.target.shape[0]
    some = [x for client in data.clients[:SAMPLE] for x in bench.examples(client, "train")[:64]]
    tokens = hidden.shape[1]
    if probe.length is not None and some:
        tokens = -(-sum(map(len, some)) // len(some))
    rows = sum(count.train + count.test for count in data.counts.values())
    return (rows + len(data.test() or ())) * tokens * row
