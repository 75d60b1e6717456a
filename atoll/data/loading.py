"""`load`: from a path, a hub id or a built-in name to a federation's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from atoll.data.arrays import read_arrays
from atoll.data.clients import Options, reader
from atoll.data.docstrings import docstrings
from atoll.data.federation import Common, FederatedData, federate
from atoll.data.holdout import check_share, hold_out
from atoll.data.hub import is_hub_id, read_hub
from atoll.data.labels import LabelSet, label_map
from atoll.data.layout import client_folders, split_file, split_files
from atoll.data.partition import Partition
from atoll.data.rows import RowKind, canonical, nearest
from atoll.data.scan import Share
from atoll.data.tables import Row, Table, read_table, suffix_of
from atoll.errors import DataError

__all__ = ["load", "load_as"]


def load(
    path: str | Path,
    *,
    partition: Partition | None = None,
    columns: Mapping[str, str] | None = None,
    holdout: float = 0.1,
    seed: int = 0,
    labels: Sequence[str] | None = None,
) -> FederatedData:
    """The data of a federation.

    `path` is a folder with a folder for each client, one data set (a folder that holds
    `train.jsonl`, a file, a hub id), which `partition` divides, or `builtin:docstrings`.
    `columns` maps the names that tasks know to the names in the files; `labels` fixes the label
    map for a site that sees only its own rows, and an empty one says that labels are numbers.
    """
    return load_as(path, Options(columns or {}, holdout, seed, labels), partition)


def load_as(path: str | Path, options: Options, partition: Partition | None) -> FederatedData:
    """`load` with what it is told in one place."""
    check_share(options.holdout)
    folder = Path(path).expanduser()
    if folder.is_dir() and not split_files(folder):
        clients = client_folders(folder)
        if partition is not None:
            raise DataError(
                f"{path} holds a folder for each client, so it is already divided; leave "
                "`partition` out, or name one data file."
            )
        return _natural(folder, clients, options)
    tables = _tables(str(path), folder)
    if partition is None:
        raise DataError(
            f"{path} is one data set; say how it falls into clients with `partition`, for example "
            "{num_clients: 10}, or {name: natural, by: client} for a column of owners."
        )
    return _divided(tables, partition, options)


def _tables(path: str, local: Path) -> dict[str, Table]:
    if path.startswith("builtin:"):
        if path != "builtin:docstrings":
            raise DataError(
                f"There is no built-in data set `{path}`{nearest(path, ['builtin:docstrings'])}."
            )
        return dict(zip(("train", "test"), docstrings(), strict=True))
    if local.is_file():
        return read_arrays(local) if local.suffix == ".npz" else {"train": read_table(local)}
    if local.is_dir():
        files = split_files(local)
        if files["train"].suffix == ".npz":
            return read_arrays(files["train"])
        return {split: read_table(file) for split, file in files.items()}
    if not is_hub_id(path) or _meant_as_file(local):
        beside = [item.name for item in local.parent.iterdir()] if local.parent.is_dir() else []
        raise DataError(
            f"There is no file or folder {path}{nearest(local.name, beside)}; check the path."
        )
    return read_hub(path)


def _meant_as_file(path: Path) -> bool:
    named_as_data = suffix_of(path) is not None or path.suffix in (".npz", ".json", ".txt")
    return named_as_data or (path.parent != Path() and path.parent.is_dir())


def _divided(tables: dict[str, Table], partition: Partition, options: Options) -> FederatedData:
    if "train" not in tables:
        raise DataError(
            f"The data set has the splits {', '.join(tables)}, but no `train`; name a file instead."
        )
    rows, kind = canonical(tables["train"], columns=options.columns)
    others = {
        split: canonical(tables[split], columns=options.columns, expected=kind)[0]
        for split in ("test", "val", "validation")
        if split in tables
    }
    try:
        parts = partition(rows, options.seed)
    except DataError as error:
        raise DataError(f"{tables['train'].origin}: {error}") from None
    file = tables["train"].places()

    def read(client: str) -> Share:
        own = [rows[index] for index in parts[client]]
        train, test = hold_out(own, share=options.holdout, seed=options.seed, client=client)
        why = "no row fell to it" if not own else ""
        return Share(train, test, held_out=True, kind=kind, why=why, train_file=file)

    val: Literal["val", "validation"] = "val" if "val" in others else "validation"
    places = {name: tables[split].places() for name, split in (("test", "test"), ("val", val))
              if split in others}  # fmt: skip
    common = Common(kind, others.get("test"), others.get(val), places)
    labels = options.labels
    if labels is None and options.declared:
        labels = _declared(tables["train"], options.columns)
    return federate(parts, read, common=common, labels=labels)


def _declared(table: Table, columns: Mapping[str, str]) -> tuple[str, ...] | None:
    """The names of labels that a data set itself says there are, in the order of a label map."""
    for column in ("label", "tags"):
        names = table.classes.get(columns.get(column, column))
        if names:
            return label_map(LabelSet(frozenset(names)))
    return None


def _natural(folder: Path, clients: dict[str, Path], options: Options) -> FederatedData:
    read = reader(clients, options)
    return federate(clients, read, common=_common(folder, options), labels=options.labels)


def _common(folder: Path, options: Options) -> Common:
    kind: RowKind | None = None
    found: dict[str, list[Row]] = {}
    places: dict[str, Table] = {}
    for split in ("test", "val"):
        file = split_file(folder, split)
        if file is not None:
            table = read_table(file)
            found[split], kind = canonical(table, columns=options.columns, expected=kind)
            places[split] = table.places()
    return Common(kind, found.get("test"), found.get("val"), places)
