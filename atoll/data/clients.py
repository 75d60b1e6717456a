"""One client's rows: of a folder of many, or all that a site holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.data.federation import Common, FederatedData, federate
from atoll.data.holdout import check_share, hold_out
from atoll.data.layout import split_file, why_skipped
from atoll.data.rows import canonical
from atoll.data.scan import Scan, Share, scan
from atoll.data.tables import Table, read_table
from atoll.errors import DataError

__all__ = ["Options", "load_client", "look_at_client", "reader"]


@dataclass(frozen=True)
class Options:
    """How rows are read: names of columns, what is held out, and the label map.

    declared: without a map, the names of labels are those that the data set itself has for them.
    """

    columns: Mapping[str, str]
    holdout: float
    seed: int
    labels: Sequence[str] | None
    declared: bool = False


def look_at_client(path: Path, client: str, options: Options) -> tuple[Scan, Share]:
    """What a site holds, before anything is known of the others; see `load_client`."""
    read = _own(path, client, options)
    numeric = options.labels is not None and not options.labels
    return scan([client], read, numeric=numeric), read(client)


def load_client(path: Path, client: str, options: Options) -> FederatedData:
    """The data of one client alone, as its site holds it: the same rows as in `load`.

    `path` is a folder that holds `train.jsonl` (and `test.jsonl`), or a file of training rows.
    """
    read = _own(path, client, options)
    data = federate([client], read, common=Common(), labels=options.labels)
    return replace(data, whole=False)


def _own(path: Path, client: str, options: Options) -> Callable[[str], Share]:
    check_share(options.holdout)
    folder = path.expanduser()
    if not folder.exists():
        raise DataError(f"there is no file or folder {path}; check the path")
    return reader({client: folder}, options)


def reader(clients: Mapping[str, Path], options: Options) -> Callable[[str], Share]:
    """Reads one client's rows, from its folder or its file of training rows."""
    files = {
        client: (place, None)
        if place.is_file()
        else (split_file(place, "train"), split_file(place, "test"))
        for client, place in clients.items()
    }

    def read(client: str) -> Share:
        train_file, test_file = files[client]
        if train_file is None:
            return Share([], [], held_out=False, kind=None, why=why_skipped(clients[client]))
        table = read_table(train_file)
        if not table.rows:
            why = f"{train_file.name} has no rows"
            return Share([], [], held_out=False, kind=None, why=why)
        rows, kind = canonical(table, columns=options.columns)
        file = table.places()
        tested = read_table(test_file) if test_file else Table(client, [])
        if tested.rows:
            test = canonical(tested, columns=options.columns, expected=kind)[0]
            return Share(rows, test, False, kind, train_file=file, test_file=tested.places())
        train, test = hold_out(rows, share=options.holdout, seed=options.seed, client=client)
        return Share(train, test, held_out=True, kind=kind, train_file=file)

    return read
