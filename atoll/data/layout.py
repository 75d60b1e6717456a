"""Where files stand: a folder of clients, or a folder that is one data set."""

from __future__ import annotations

from pathlib import Path

from atoll.data.tables import SUFFIXES, suffix_of
from atoll.errors import DataError

__all__ = ["client_folders", "split_file", "split_files", "why_skipped"]

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
    """A folder for each client by name; one without training rows is skipped later, and told."""
    inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    found = {path.name: path for path in inside if path.is_dir()}
    if not any(_holds_rows(path) for path in found.values()):
        raise DataError(
            f"{folder} holds no data: expected a folder for each client with a train.jsonl in it, "
            f"or a train.jsonl (also .jsonl.gz, .csv, .parquet) for one data set.{_hint(inside)}"
        )
    return found


def why_skipped(folder: Path) -> str:
    """Why a client's folder gives no rows, in words that name what is there instead."""
    inside = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if not inside:
        return "an empty folder"
    # The file that may have been meant goes first.
    inside.sort(key=lambda name: not name.lower().startswith("train"))
    more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
    return f"no train file; found {', '.join(inside[:3])}{more}"


def _holds_rows(path: Path) -> bool:
    return any(suffix_of(item) is not None for item in path.iterdir())


def _hint(inside: list[Path]) -> str:
    loose = [path.name for path in inside if suffix_of(path)]
    if loose:
        return f" It holds {', '.join(loose[:5])}: rename one to train, or name it."
    other = [item for path in inside if path.is_dir() for item in sorted(path.iterdir())]
    if other:
        return f" It holds {other[0].relative_to(inside[0].parent)}, whose format is not read."
    return ""
