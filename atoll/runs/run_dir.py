"""The run directory: what a run writes, and where.

experiment.yaml (resolved) · run.json (versions, seed, command, fingerprints) · rounds.jsonl ·
clients.jsonl · checkpoints/ · client_state/ · summary.json · adapter/
"""

from __future__ import annotations

import json
import platform
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from atoll.config import dump
from atoll.disk.files import append_line, json_text, sweep, write_json, write_text
from atoll.errors import RunError
from atoll.experiment.setup import Setup
from atoll.experiment.standing import look, other_run
from atoll.models.locate import fingerprint

__all__ = ["RunDirectory", "begin"]

ENDS = ("audit.json", "report.html", "summary.json")
"""What a finished run has."""
PACKAGES = ("atoll", "torch", "transformers", "peft", "datasets", "flwr-datasets", "safetensors")


@dataclass(frozen=True)
class RunDirectory:
    """Paths and appends; every whole file appears at once."""

    path: Path

    @property
    def adapter(self) -> Path:
        """Where the trained adapter goes."""
        return self.path / "adapter"

    def add_round(self, line: dict[str, Any]) -> None:
        """One line of rounds.jsonl."""
        append_line(self.path / "rounds.jsonl", line)

    @property
    def checkpoints(self) -> Path:
        """Where the run stands after its last rounds."""
        return self.path / "checkpoints"

    @property
    def client_state(self) -> Path:
        """Where clients keep what they go on from."""
        return self.path / "client_state"

    def record(self) -> dict[str, Any] | None:
        """run.json; None where the run has not begun."""
        if not (self.path / "run.json").is_file():
            return None
        found: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return found

    def rounds(self) -> list[dict[str, Any]]:
        """The whole lines of rounds.jsonl; the last one may have been cut off."""
        path = self.path / "rounds.jsonl"
        if not path.is_file():
            return []
        found: list[dict[str, Any]] = []
        # Not splitlines: a message may hold a line break of Unicode.
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def keep_rounds(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write rounds.jsonl anew, with these lines alone."""
        text = "".join(json_text(line) + "\n" for line in lines)
        write_text(self.path / "rounds.jsonl", text)

    def clients(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write clients.jsonl."""
        text = "".join(json_text(line) + "\n" for line in lines)
        write_text(self.path / "clients.jsonl", text)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write summary.json, which says that the run is complete."""
        write_json(self.path / "summary.json", summary)


def begin(
    run: RunDirectory, setup: Setup, lines: int, start: Mapping[str, Any] | None = None
) -> None:
    """Write what a run writes before its first round, or add to it where the run goes on.

    lines: how many of rounds.jsonl stay.   start: what a private run knows of what it starts from.
    What is refused leaves everything as it was.

    Raises:
        RunError: when data or base are no longer those that the run was started with, or another
            experiment has been started there.
    """
    text, path = dump(setup.experiment), run.path
    standing = look(path, text)
    if standing.state == "other":
        raise other_run(path, standing.changes)
    started, found = run.record(), {**_record(setup), "starts_from": start}
    if started is not None:
        _check_same(started["fingerprints"], found["fingerprints"], setup, path)
        again = {"versions": found["versions"], "command": found["command"]}
        found = {"id": found["id"], **started, "resumed": [*started.get("resumed", []), again]}
    for folder in (path, run.adapter):
        sweep(folder)
    # A run that goes on is unfinished, and with more rounds its file is another one.
    for name in ENDS:
        (path / name).unlink(missing_ok=True)
    write_text(path / "experiment.yaml", text)
    write_json(path / "run.json", found)
    run.keep_rounds(run.rounds()[:lines])


def _check_same(
    before: Mapping[str, str], now: Mapping[str, str], setup: Setup, path: Path
) -> None:
    named = {"data": setup.experiment.data.path, "base": setup.experiment.model.name_or_path}
    for kind, what in named.items():
        if before[kind] != now[kind]:
            raise RunError(
                f"{what} has changed since the run in {path} was started, so that it cannot go on "
                "with the same numbers; put back what was there, set output_dir to a new "
                "directory, or add --fork to start anew from its last checkpoint"
            )


def _record(setup: Setup) -> dict[str, Any]:
    return {
        # Whatever becomes of its directory, by this a ledger knows what a run spent.
        "id": secrets.token_hex(16),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.platform(),
        "command": sys.argv,
        "seed": setup.experiment.seed,
        "threads": torch.get_num_threads(),
        "device": str(setup.bench.device),
        "group_size": setup.bench.group_size,
        "dtype": str(next(setup.base.model.parameters()).dtype).removeprefix("torch."),
        "targets": list(setup.built.targets),
        "fingerprints": {
            "base": fingerprint(setup.base.backbone),
            "data": setup.data.fingerprint,
        },
        "data": setup.data.card(),
        "forked_from": setup.forked_from,
    }
