"""Data sets of the Hugging Face hub, read as tables; code of the data set is never run."""

from __future__ import annotations

import re
from typing import Any

from atoll.data.tables import Row, Table
from atoll.errors import DataError

__all__ = ["is_hub_id", "read_hub", "tables_of"]

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
TIMEOUT = 10.0  # seconds; without it an unreachable hub costs half a minute of retries


def is_hub_id(path: str) -> bool:
    """`owner/name`, or `owner/name:subset`."""
    return _HUB_ID.fullmatch(path) is not None


def read_hub(path: str) -> dict[str, Table]:
    """The splits of a hub data set by name."""
    name, _, subset = path.partition(":")
    _check_reachable(name)
    import datasets

    try:
        loaded = datasets.load_dataset(name, subset or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"There is no file or folder {path} here, and a data set of that name on the hub "
            f"cannot be loaded: {reason.rstrip('.')}. A subset is chosen with a colon, as in "
            "owner/name:subset."
        ) from error
    return tables_of(loaded, origin=path)


def tables_of(loaded: Any, *, origin: str) -> dict[str, Table]:
    """A `datasets.DatasetDict` as tables: class numbers become names, images stay bytes."""
    return {split: _table(f"{origin} ({split})", dataset) for split, dataset in loaded.items()}


def _check_reachable(name: str) -> None:
    import httpx
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(name, timeout=TIMEOUT)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataError(
            f"`{name}` is neither a file or folder here nor a data set on the hub; check the path "
            "(for a private or gated data set, log in with `hf auth login`)."
        ) from error
    except (OSError, httpx.HTTPError) as error:
        raise DataError(
            f"`{name}` is neither a file nor a folder here, and the hub cannot be reached to look "
            f"for a data set of that name ({error}). Check the path, or the connection; with "
            "HF_HUB_OFFLINE=1 a copy that was fetched earlier is used."
        ) from error


def _table(origin: str, dataset: Any) -> Table:
    import datasets

    classes: dict[str, list[str]] = {}
    for column, feature in dataset.features.items():
        inner = (
            feature.feature if isinstance(feature, datasets.Sequence | datasets.List) else feature
        )
        if isinstance(inner, datasets.ClassLabel):
            classes[column] = inner.names
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
    rows: list[Row] = [
        {
            column: _named(value, classes[column]) if column in classes else value
            for column, value in row.items()
        }
        for row in dataset
    ]
    return Table(origin, rows, classes=classes)


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    # The hub writes -1 where a test label is kept secret: no label.
    return names[value] if value is not None and value >= 0 else None
