"""Images from a NumPy `.npz` file: `x_train`, `y_train`, and perhaps `x_test`, `y_test`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from atoll.data.tables import Table
from atoll.errors import DataError

__all__ = ["read_arrays"]


def read_arrays(path: Path) -> dict[str, Table]:
    """The splits of an image file; further arrays such as `client_train` become columns."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: not an .npz file of plain arrays ({error}); write it with numpy.savez."
        ) from error
    if not {"x_train", "y_train"} <= set(arrays):
        raise DataError(
            f"{path}: holds the arrays {', '.join(sorted(arrays)) or '(none)'}; "
            "images need x_train and y_train (and x_test, y_test for a common test set)."
        )
    splits = [split for split in ("train", "val", "test") if f"x_{split}" in arrays]
    return {split: _table(path, split, arrays) for split in splits}


def _table(path: Path, split: str, arrays: dict[str, Any]) -> Table:
    names = {"x": "image", "y": "label"}
    columns = {
        names.get(key.removesuffix(f"_{split}"), key.removesuffix(f"_{split}")): array
        for key, array in arrays.items()
        if key.endswith(f"_{split}")
    }
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{path}: the {split} arrays have different lengths: {lengths}.")
    if "label" not in columns:
        raise DataError(f"{path}: x_{split} has no y_{split}; add the labels.")
    # Images stay arrays: a list of Python numbers would take fifty times the memory.
    lists = {
        name: list(array) if name == "image" else array.tolist() for name, array in columns.items()
    }
    rows = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    return Table(f"{path} ({split})", rows)
