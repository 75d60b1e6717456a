"""`report_to`: the same numbers for the tracking tools that people already watch.

A tracker gets each round's metrics, the resolved experiment file and the final summary, without the
names of clients: those stay in the run directory. It never ends a run that has begun: what fails is
a note.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.config import Experiment, Loaded, dump
from atoll.disk.files import write_json
from atoll.errors import ConfigError
from atoll.experiment.tracker_libraries import LIBRARIES, Begin, Tracker

__all__ = ["Tracking", "check_trackers", "tracking"]

HELD = "tracker.json"
"""What each tracker calls this run. No address and no key: those are the environment's."""


@dataclass(frozen=True)
class Tracking:
    """All trackers of a run.

    log_round: a line of rounds.jsonl.   finish: what summary.json holds.
    """

    log_round: Callable[[Mapping[str, Any]], None]
    finish: Callable[[Mapping[str, Any]], None]


def check_trackers(loaded: Loaded) -> None:
    """Refuse trackers that are not installed.

    Raises:
        ConfigError: which names the extra to install.
    """
    for name in _names(loaded.experiment):
        if not _installed(name):
            raise ConfigError(
                f"{loaded.where('report_to')}: report_to is {name}, which is not installed; "
                f"run: pip install 'atoll[{name}]', or set report_to: none"
            )


@contextmanager
def tracking(
    experiment: Experiment,
    folder: Path,
    *,
    note: Callable[[str], None],
    first_round: int = 0,
) -> Iterator[Tracking]:
    """Open the trackers of a run, and close them at its end, however it ends.

    first_round: above 0, the run goes on from there, under the same names in its trackers.

    Raises:
        ConfigError: when a tracker cannot be opened for a run that begins.
    """
    open_ = _open_all(experiment, folder, note=note, first_round=first_round)
    rounds = [first_round - 1]

    def each(do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(open_.items()):
            try:
                do(tracker)
            except Exception as error:  # Of a library, a network, a disk: the run goes on.
                del open_[name]
                note(f"report_to: {name} failed and hears no more of this run: {_short(error)}")

    def log_round(line: Mapping[str, Any]) -> None:
        rounds.append(int(line["round"]))
        each(lambda tracker: tracker.log_round(rounds[-1], _of_round(line)))

    def finish(summary: Mapping[str, Any]) -> None:
        each(lambda tracker: tracker.finish(max(rounds[-1], 0), _of_summary(summary)))

    ended = False
    try:
        yield Tracking(log_round, finish)
        ended = True
    finally:
        each(lambda tracker: tracker.close(ended))


def _open_all(
    experiment: Experiment, folder: Path, *, note: Callable[[str], None], first_round: int
) -> dict[str, Tracker]:
    names = _names(experiment)
    if not names:
        return {}
    held = _held(folder / HELD) if first_round > 0 else {}
    config, text = experiment.model_dump(mode="json"), dump(experiment)
    found: dict[str, Tracker] = {}
    for name in names:
        begin = Begin(folder, config, text, first_round, held.get(name))
        try:
            found[name] = LIBRARIES[name](begin)
        except Exception as error:
            why = f"report_to: {name} could not be opened: {_short(error)}"
            if first_round == 0:
                for tracker in found.values():
                    with suppress(Exception):
                        tracker.close(False)
                raise ConfigError(f"{why}; set report_to: none to train without it") from error
            note(f"{why}; the run goes on without it")
    for name, tracker in found.items():
        if tracker.place:
            note(f"report_to: {name}: {tracker.place}")
    write_json(folder / HELD, held | {name: dict(one.identity) for name, one in found.items()})
    return found


def _names(experiment: Experiment) -> tuple[str, ...]:
    given = experiment.report_to
    if isinstance(given, str):
        return () if given == "none" else (given,)
    return given


def _installed(name: str) -> bool:
    found = importlib.util.find_spec(name)
    # A folder of that name, as wandb itself leaves behind, is no library.
    return found is not None and found.origin is not None


def _held(path: Path) -> dict[str, Any]:
    """What trackers called the run before; nothing where that is lost, and they begin anew."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _of_round(line: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in line.items() if name != "round"}
    return _numbers({**numbers, "failures": len(line.get("failures") or ())})


def _of_summary(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary, flat; not those of single clients, which carry their names."""
    return _numbers({name: value for name, value in summary.items() if name != "per_client"})


def _numbers(tree: Mapping[str, Any], path: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{path}{name}/")
        elif isinstance(value, list | tuple) and len(value) == 2:
            found |= _numbers(dict(zip(("low", "high"), value, strict=True)), f"{path}{name}/")
        elif isinstance(value, bool):
            continue
        elif isinstance(value, int | float) and math.isfinite(value):
            found[f"{path}{name}"] = float(value)
    return found


def _short(error: Exception) -> str:
    """An error in one line, without what libraries add below, or a password in an address."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    line = re.sub(r"://[^/@\s]+@", "://", line)
    return f"{type(error).__name__}: {line.strip()[:200]}" if line else type(error).__name__
