"""Images from an `.npz` file: `x_train` with `y_train` or `text_train`, perhaps a test part."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from atoll.data.pixels import eight_bits
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
    if "x_train" not in arrays or not {"y_train", "text_train"} & arrays.keys():
        raise DataError(
            f"{path}: holds the arrays {', '.join(sorted(arrays)) or '(none)'}; "
            "images need x_train and y_train, or text_train where they go with texts (and x_test, "
            "y_test for a common test set)."
        )
    splits = [split for split in ("train", "val", "test") if f"x_{split}" in arrays]
    images = [arrays[f"x_{split}"] for split in splits]
    # One scale for all: a dark image alone does not tell what white is.
    white = max((float(x.max()) for x in images if x.size and x.dtype.kind in "iuf"), default=0.0)
    return {split: _table(path, split, arrays, white) for split in splits}


def _table(path: Path, split: str, arrays: dict[str, Any], white: float) -> Table:
    names = {"x": "image", "y": "label"}
    columns = {
        names.get(key.removesuffix(f"_{split}"), key.removesuffix(f"_{split}")): array
        for key, array in arrays.items()
        if key.endswith(f"_{split}")
    }
    lengths = {name: len(array) if array.ndim else 0 for name, array in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{path}: the {split} arrays have different lengths: {lengths}.")
    if "label" not in columns and "text" not in columns:
        raise DataError(f"{path}: x_{split} has no y_{split}; add the labels.")
    try:
        columns["image"] = eight_bits(columns["image"], white)
    except DataError as error:
        raise DataError(f"{path}, x_{split}: {error}") from error
    # Images stay arrays: a list of Python numbers would take fifty times the memory.
    lists = {
        name: list(array) if name == "image" else array.tolist() for name, array in columns.items()
    }
    rows = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    return Table(f"{path} ({split})", rows)
