"""Reading a run directory, finished or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from atoll.config.yaml_text import parse
from atoll.errors import ConfigError, RunError
from atoll.report.audit_file import FILE as AUDIT
from atoll.report.audit_file import FORMAT, Audit
from atoll.report.records import RoundRow, Summary

__all__ = ["REPORT", "RunFiles", "read_run"]

REPORT = "report.html"
"""What the report of a run is called in its directory."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds.

    summary: None where the run is not finished.   record: run.json.
    audit: what `atoll audit` found; None where nobody looked.   notes: what was left out.
    """

    path: Path
    experiment: str
    config: JsonValue
    record: Mapping[str, Any]
    rounds: tuple[RoundRow, ...]
    summary: Summary | None
    audit: Audit | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run's own name: that of its directory."""
        return self.path.resolve().name or str(self.path)


def read_run(path: Path) -> RunFiles:
    """Read the files that a report is made of.

    Raises:
        RunError: when the directory is not there, is none of a run, or holds a damaged file.
    """
    if not path.is_dir():
        raise RunError(f"there is no run directory {path}; name one that `atoll run` wrote")
    if not (path / "experiment.yaml").is_file():
        raise RunError(f"{path} is no run directory: it holds no experiment.yaml")
    text = _text(path / "experiment.yaml") or ""
    try:
        config = parse(text, at=lambda line: f"{path}/experiment.yaml:{line}").tree
    except ConfigError as error:
        raise RunError(f"{error}; a run directory's files are not to be edited") from None
    record = _object(path / "run.json")
    rounds, notes = _rounds(path / "rounds.jsonl")
    summary = _object(path / "summary.json")
    audit, more = _audit(path / AUDIT)
    notes += more
    return RunFiles(
        path=path,
        experiment=text,
        config=config,
        record=record or {},
        rounds=rounds,
        summary=None if summary is None else _typed(Summary, summary, str(path / "summary.json")),
        audit=audit,
        notes=notes if record else (*notes, "run.json is missing: versions are not known"),
    )


def _audit(path: Path) -> tuple[Audit | None, tuple[str, ...]]:
    """What an audit found; one that another version wrote is left out."""
    found = _object(path)
    if found is None:
        return None, ()
    if found.get("format") != FORMAT:
        return None, (f"{AUDIT} is of another version and left out; `atoll audit` measures again",)
    return _typed(Audit, found, str(path)), ()


def _rounds(path: Path) -> tuple[tuple[RoundRow, ...], tuple[str, ...]]:
    """The rounds in order; a last line that was cut off is left out."""
    text = _text(path) or ""
    # Not splitlines: a message may hold a line break of Unicode.
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    found: dict[int, RoundRow] = {}
    for number, line in lines:
        place = f"{path}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            if number == lines[-1][0]:
                return _ordered(found), (f"line {number} of rounds.jsonl is cut off and left out",)
            raise RunError(f"{place}: no JSON; {_DAMAGED}") from None
        row = _typed(RoundRow, value, place)
        # A run that was stopped may write a round again.
        found[row.round] = row
    return _ordered(found), ()


def _ordered(found: Mapping[int, RoundRow]) -> tuple[RoundRow, ...]:
    return tuple(found[number] for number in sorted(found))


_DAMAGED = "the file is damaged; restore it, or run the experiment again"


def _object(path: Path) -> dict[str, Any] | None:
    text = _text(path)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: no JSON ({error}); {_DAMAGED}") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} is not what a run writes; {_DAMAGED}")
    return found


def _text(path: Path) -> str | None:
    """A file's text; None where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: not UTF-8 text (byte {error.start}); {_DAMAGED}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None


def _typed(kind: type[M], value: object, place: str) -> M:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the value"
        what = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise RunError(f"{place}: {where}: {what}; {_DAMAGED}") from None
