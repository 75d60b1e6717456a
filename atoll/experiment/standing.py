"""What stands in a run directory when a run is about to begin there."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from atoll.config import dump, load
from atoll.config.words import shown
from atoll.config.yaml_text import parse
from atoll.disk.files import unfinished
from atoll.disk.lock import alone
from atoll.errors import ConfigError, RunError
from atoll.words import listed

__all__ = ["Machine", "Standing", "differences", "look", "no_run", "other_run", "standing"]

ROUNDS = "federation.num_rounds"
BESIDE = ("output_dir", "report_to", "privacy.lifetime_epsilon")
"""Keys on which no number depends: a run goes on, or is finished, under other values of them."""


@dataclass(frozen=True)
class Machine:
    """What a run found at its first start, and keeps where it goes on: the bits depend on it."""

    group_size: int
    threads: int
    device: str


@dataclass(frozen=True)
class Standing:
    """A directory: new, with an unfinished run of this experiment, with a finished one, or other's.

    summary: of the finished run.   machine: what the run was started with.
    changes: how this experiment differs from the one that stands there; of an unfinished or
        finished run, only that it has more rounds now.
    """

    state: Literal["new", "unfinished", "finished", "other"]
    summary: dict[str, Any] | None = None
    machine: Machine | None = None
    changes: str = ""


def standing(path: Path, resolved: str) -> Standing:
    """Look at `path`, where the resolved experiment is to run.

    Raises:
        RunError: when nothing can run there, or what stands there cannot be read.
    """
    if not path.is_dir():
        return look(path, resolved)
    with alone(path):
        return look(path, resolved)


def look(path: Path, resolved: str) -> Standing:
    """As `standing`, for who holds the directory."""
    if not path.exists():
        _check_place(path)
        return Standing("new")
    if not path.is_dir():
        raise RunError(f"output_dir {path} is a file; set output_dir to a directory")
    held = path / "experiment.yaml"
    if not held.is_file():
        if no_run(path):
            raise RunError(
                f"output_dir {path} holds files that are not of a run; set output_dir to a new one"
            )
        return Standing("new")
    try:
        before = _resolved(held)
        changes = _changed(before, resolved)
    except (ConfigError, UnicodeDecodeError) as error:
        raise RunError(
            f"{held} is damaged ({error}); put it back, or set output_dir to a new directory"
        ) from None
    machine = _machine(path)
    if not changes or _extends(changes):
        summary = _summary(path)
        if summary is not None and not changes:
            return Standing("finished", summary, machine)
        _check_place(path)
        return Standing("unfinished", summary, machine, differences(before, resolved))
    return Standing("other", None, machine, differences(before, resolved))


def no_run(path: Path) -> bool:
    """Whether something stands there that is no run, and no beginning of one."""
    if not path.is_dir():
        return path.exists()
    held = path / "experiment.yaml"
    return not held.is_file() and not all(map(unfinished, path.iterdir()))


def _resolved(held: Path) -> str:
    """The experiment of a run as this version resolves it: keys that are new have their defaults.

    One that this version would not read stays as it is written.
    """
    try:
        return dump(load(held).experiment)
    except ConfigError:
        return held.read_text(encoding="utf-8")


def other_run(path: Path, changes: str) -> RunError:
    """That a directory is taken, and how the experiment there differs."""
    return RunError(
        f"{path} holds a run of another experiment ({changes}); set output_dir to a new directory"
    )


def differences(before: str, after: str) -> str:
    """`federation.num_rounds: 2 -> 3`: where two resolved experiments differ in more than place."""
    changed = _changed(before, after)
    return listed([f"{key}: {shown(old)} -> {shown(new)}" for key, (old, new) in changed.items()])


def _changed(before: str, after: str) -> dict[str, tuple[JsonValue, JsonValue]]:
    old, new = (_flat(parse(text, at="line {}".format).tree) for text in (before, after))
    keys = [key for key in {**old, **new} if key not in BESIDE and old.get(key) != new.get(key)]
    return {key: (old.get(key), new.get(key)) for key in keys}


def _extends(changes: dict[str, tuple[JsonValue, JsonValue]]) -> bool:
    """Whether an experiment only has more rounds than before."""
    if changes.keys() != {ROUNDS}:
        return False
    before, after = changes[ROUNDS]
    return isinstance(before, int) and isinstance(after, int) and after > before


def _flat(tree: JsonValue, path: str = "") -> dict[str, JsonValue]:
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {
        key: value
        for name, inner in tree.items()
        for key, value in _flat(inner, f"{path}.{name}" if path else name).items()
    }


def _check_place(path: Path) -> None:
    """Refuse a directory that could not be made, before hours of training."""
    place = next(each for each in [path, *path.absolute().parents] if each.exists())
    if place != path and not place.is_dir():
        raise RunError(f"output_dir is {path}, but {place} is a file; set output_dir elsewhere")
    if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"output_dir is {path}, but you may not write in {place}; set it elsewhere")


def _summary(path: Path) -> dict[str, Any] | None:
    if not (path / "summary.json").is_file():
        return None
    if not (path / "run.json").is_file():
        raise RunError(
            f"{path}/run.json is missing, which a finished run has; remove {path}/summary.json, "
            "and run the same command again"
        )
    then = "remove it, and run the same command again"
    return _written(path / "summary.json", {"final", "baselines", "num_rounds"}, then)


def _machine(path: Path) -> Machine | None:
    """None where a run was stopped before it wrote run.json."""
    if not (path / "run.json").is_file():
        return None
    then = f"remove {path} to run the experiment from its beginning"
    keys = {"group_size", "threads", "device", "fingerprints", "data"}
    record = _written(path / "run.json", keys, then)
    return Machine(record["group_size"], record["threads"], record["device"])


def _written(path: Path, keys: set[str], then: str) -> dict[str, Any]:
    """A file of a run; `then` is what to do when it is damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); {then}") from None
    if not isinstance(found, dict) or not keys <= found.keys():
        raise RunError(f"{path} is damaged (it is not what a run writes); {then}")
    return found
