"""A finished run, opened again: its model with the trained adapter.

run = load_run(Path("runs/quickstart"), note=print)
rows = run.setup.bench.objective.encode(run.rows(Path("new.jsonl")))
evaluate(run.setup.bench, run.values, rows).mean
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atoll.artifacts.read_adapter import read_adapter
from atoll.config import Loaded, load
from atoll.data.labels import check_known, check_numbers, labels_of, numbers
from atoll.data.moments import Moments
from atoll.data.rows import RowKind, canonical
from atoll.data.tables import Row, read_table
from atoll.errors import DataError, ModelError, RunError
from atoll.experiment.rows import load_data
from atoll.experiment.setup import Setup, prepare
from atoll.experiment.stand_in import stand_in
from atoll.models.locate import fingerprint
from atoll.tree import Tree

__all__ = ["TrainedRun", "load_run", "read_adapter"]


@dataclass(frozen=True)
class TrainedRun:
    """A run directory, its model, and the values that were trained.

    kind: of the rows that it was trained on.
    chat: whether those rows were chats.
    """

    path: Path
    setup: Setup
    values: Tree
    kind: RowKind
    chat: bool = False

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        found: dict[str, Any] = _json(self.path / "summary.json", keys={"final"})
        return found

    @property
    def record(self) -> dict[str, Any]:
        """run.json."""
        return _json(self.path / "run.json", keys={"id", "fingerprints"})

    @property
    def changed(self) -> bool:
        """Whether the clients' rows, where they were read, are others than it was trained on."""
        return bool(self.setup.data.fingerprint != self.record["fingerprints"]["data"])

    def rows(self, path: Path) -> list[Row]:
        """The rows of a file, under the names and of the kind that the run was trained on.

        Raises:
            DataError: for no rows, rows of another kind, or labels that the model does not know.
        """
        columns, data = self.setup.experiment.data.columns, self.setup.data
        table = read_table(path)
        if not table.rows:
            raise DataError(f"{path}: no rows; give at least one")
        rows, _ = canonical(table, columns=columns, expected=self.kind)
        if data.moments is not None:
            check_numbers(labels_of(rows), where=str(path))
            return numbers(rows)
        if self.setup.base.head is not None and data.labels is not None:
            check_known(data.labels, labels_of(rows), where=str(path), given=False)
        return rows


def load_run(
    path: Path,
    *,
    note: Callable[[str], None],
    with_data: bool = False,
    moved: Path | None = None,
) -> TrainedRun:
    """Build the model of a finished run from its files.

    with_data: also read the clients' rows, which stand where the experiment file says.
    moved: where they stand now, if that is elsewhere.

    Raises:
        RunError: when the run is not there or not finished.
        ModelError: when the adapter does not fit the model, or that has other weights now.
    """
    record, facts = _finished(path)
    loaded = _loaded(path, str(facts.get("base_model", "")), moved, with_data=with_data)
    labels = facts["labels"]
    data = (
        load_data(loaded)
        if with_data
        else stand_in(loaded.experiment, labels, record["data"]["kind"])
    )
    if "deviation" in facts:
        # The numbers that the model gives are in units of the rows that it was trained on.
        square = facts["deviation"] ** 2
        data = replace(data, moments=Moments(1, facts["mean"], square))
    setup = prepare(loaded, note=lambda text: None, data=data)
    if labels is not None and list(setup.data.labels or ()) != labels:
        raise DataError(
            f"{loaded.experiment.data.path} no longer has the labels that {path} was trained on "
            f"({len(labels)}, now {len(setup.data.labels or ())}); name other rows to "
            "evaluate on, or run the experiment again"
        )
    _compare(setup, path, record, note=note, with_data=with_data)
    values, kind = read_adapter(setup, path / "adapter"), record["data"]["kind"]
    return TrainedRun(path, setup, values, kind, bool(facts.get("chat", kind == "messages")))


def _loaded(path: Path, recorded: str, moved: Path | None, *, with_data: bool) -> Loaded:
    """The run's experiment, as far as it matters to the model; recorded: where its base was."""
    # Who trained it, and how, changes nothing of the model.
    # Its rows are read once: what blocks make of them is not kept.
    rounds = load(path / "experiment.yaml").experiment.federation.num_rounds
    overrides = [f"federation={{num_rounds: {rounds}}}", "evaluate.baselines=[]", "report_to=none"]
    # Its own values are read below.
    overrides += ["train.prefix_cache=off", "adapter.name_or_path=null"]
    if moved is not None:
        overrides.append(f"data.path={json.dumps(str(moved))}")
    loaded = load(path / "experiment.yaml", overrides=overrides)
    if not with_data or loaded.experiment.privacy.unit == "client":
        # Sums and noise are of the cohorts and rows that were asked; nobody is asked now.
        overrides.append("privacy={}")
        loaded = load(path / "experiment.yaml", overrides=overrides)
    folder = _model_folder(loaded.experiment.model.name_or_path, recorded)
    if folder is not None:
        overrides.append(f"model.name_or_path={json.dumps(folder)}")
        loaded = load(path / "experiment.yaml", overrides=overrides)
    return loaded


def _model_folder(named: str, recorded: str) -> str | None:
    """Where the model's folder was, if the file's path is relative and leads nowhere else now.

    Else a path that no folder has here would be taken for a name on the hub.
    """
    if not Path(recorded).is_absolute() or Path(named).expanduser().is_absolute():
        return None
    return None if Path(named).is_dir() and not Path(recorded).is_dir() else recorded


def _finished(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """run.json, and the adapter's atoll.json."""
    if not path.is_dir():
        raise RunError(f"there is no run directory {path}; name one that `atoll run` wrote")
    if not (path / "experiment.yaml").is_file():
        raise RunError(f"{path} is no run directory: it holds no experiment.yaml")
    if not (path / "summary.json").is_file():
        raise RunError(
            f"the run in {path} is not finished; `atoll run {path / 'experiment.yaml'}` runs it"
        )
    record = _json(path / "run.json", keys={"data", "fingerprints"})
    return record, _json(path / "adapter" / "atoll.json", keys={"labels"})


def _json(path: Path, *, keys: set[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; run the experiment again") from error
    if not isinstance(found, dict) or not keys <= found.keys():
        raise RunError(f"{path} is not what a run writes; run the experiment again")
    return found


def _compare(
    setup: Setup,
    path: Path,
    record: dict[str, Any],
    *,
    note: Callable[[str], None],
    with_data: bool,
) -> None:
    """Refuse a base model that is no longer that of the run, and say so of the data.

    Raises:
        ModelError: for the base model.
    """
    prints = record["fingerprints"]
    if fingerprint(setup.base.backbone) != prints["base"]:
        raise ModelError(
            f"{setup.base.source.hub_id} has other weights than when {path} was trained, and with "
            "those the adapter is another model; put the earlier ones back, or set model.revision"
        )
    if with_data and setup.data.fingerprint != prints["data"]:
        holds = "may hold" if (path / "federation.json").is_file() else "holds"  # no server knows
        note(f"{setup.experiment.data.path} {holds} other rows than when the run was trained")
