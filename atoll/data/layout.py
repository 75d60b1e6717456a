"""Where files stand: a folder of clients, or a folder that is one data set."""

from __future__ import annotations

from pathlib import Path

from atoll.data.tables import SUFFIXES, suffix_of
from atoll.errors import DataError

__all__ = ["client_folders", "split_file", "split_files"]

_ALIASES = {"train": ("train",), "test": ("test",), "val": ("val", "validation")}


def split_file(folder: Path, split: str) -> Path | None:
    """The one file of a split in a folder, whatever its format."""
    names = [f"{stem}{suffix}" for stem in _ALIASES[split] for suffix in SUFFIXES]
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(
            f"{folder} holds {' and '.join(path.name for path in found)}, so it is not clear which "
            f"one is the {split} part; keep one."
        )
    return found[0] if found else None


def split_files(folder: Path) -> dict[str, Path]:
    """The files of one data set by split; empty when the folder holds no training file itself."""
    train = split_file(folder, "train")
    arrays = folder / "data.npz"
    if train is None:
        return {"train": arrays} if arrays.is_file() else {}
    others = {split: split_file(folder, split) for split in ("test", "val")}
    return {"train": train} | {split: path for split, path in others.items() if path}


def client_folders(folder: Path) -> dict[str, Path]:
    """A folder for each client by name; those that hold only other things are left alone."""
    found = {path.name: path for path in sorted(folder.iterdir()) if _is_client(path)}
    if not found:
        loose = sorted(path.name for path in folder.iterdir() if suffix_of(path))
        hint = (
            f" It holds {', '.join(loose[:5])}: rename one to train, or name it." if loose else ""
        )
        raise DataError(
            f"{folder} holds no data: expected a folder for each client with a train.jsonl in it, "
            f"or a train.jsonl (also .jsonl.gz, .csv, .parquet) for one data set.{hint}"
        )
    return found


def _is_client(path: Path) -> bool:
    if not path.is_dir() or path.name.startswith("."):
        return False
    inside = list(path.iterdir())
    # An empty folder is a client whose rows have not come yet: it is reported as skipped.
    return not inside or any(suffix_of(item) is not None for item in inside)
