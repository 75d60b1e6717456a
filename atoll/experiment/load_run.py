"""A finished run, opened again: its model with the trained adapter.

run = load_run(Path("runs/quickstart"), note=print)
rows = run.setup.bench.objective.encode(run.rows(Path("new.jsonl")))
evaluate(run.setup.bench, run.values, rows).mean
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atoll.config import Experiment, load
from atoll.data import ClientCount, FederatedData
from atoll.data.federation import Common
from atoll.data.labels import check_known, labels_of
from atoll.data.rows import RowKind, canonical
from atoll.data.scan import Share
from atoll.data.tables import Row, read_table
from atoll.errors import DataError, ModelError, RunError
from atoll.experiment.setup import Setup, prepare
from atoll.experiment.tasks import task_of
from atoll.local.bench import model_values
from atoll.models.locate import fingerprint
from atoll.tree import Tree

__all__ = ["TrainedRun", "load_run", "read_adapter"]

PEFT = "base_model.model."


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

    def rows(self, path: Path) -> list[Row]:
        """The rows of a file, under the names and of the kind that the run was trained on.

        Raises:
            DataError: for rows of another kind, or with labels that the model does not know.
        """
        columns = self.setup.experiment.data.columns
        rows, _ = canonical(read_table(path), columns=columns, expected=self.kind)
        if self.setup.base.head is not None:
            assert self.setup.data.labels is not None, "a classifier has labels"
            check_known(self.setup.data.labels, labels_of(rows), where=str(path), given=False)
        return rows


def load_run(path: Path, *, note: Callable[[str], None], with_data: bool = False) -> TrainedRun:
    """Build the model of a finished run from its files.

    with_data: also read the clients' rows, which stand where the experiment file says.

    Raises:
        RunError: when the run is not there or not finished.
        ModelError: when the adapter does not fit the model.
    """
    record, facts = _finished(path)
    # Who trained it, and how, changes nothing of the model.
    overrides = ["federation={}", "evaluate.baselines=[]"]
    loaded = load(path / "experiment.yaml", overrides=overrides)
    folder = _model_folder(loaded.experiment.model.name_or_path, str(facts.get("base_model", "")))
    if folder is not None:
        overrides.append(f"model.name_or_path={json.dumps(folder)}")
        loaded = load(path / "experiment.yaml", overrides=overrides)
    labels = facts["labels"]
    data = None if with_data else _stand_in(loaded.experiment, labels)
    setup = prepare(loaded, note=lambda text: None, data=data)
    if labels is not None and list(setup.data.labels or ()) != labels:
        raise DataError(
            f"{loaded.experiment.data.path} no longer has the labels that {path} was trained on "
            f"({len(labels)}, now {len(setup.data.labels or ())}); name other rows to "
            "evaluate on, or run the experiment again"
        )
    _compare(setup, record, note=note, with_data=with_data)
    values, kind = read_adapter(setup, path / "adapter"), record["data"]["kind"]
    return TrainedRun(path, setup, values, kind, bool(facts.get("chat", kind == "messages")))


def _model_folder(named: str, recorded: str) -> str | None:
    """Where the model's folder was, if the file's path is relative and leads nowhere else now.

    Else a path that no folder has here would be taken for a name on the hub.
    """
    if not Path(recorded).is_absolute() or Path(named).expanduser().is_absolute():
        return None
    return None if Path(named).is_dir() and not Path(recorded).is_dir() else recorded


def read_adapter(setup: Setup, folder: Path) -> Tree:
    """The trained values in an adapter folder, under the model's names.

    Raises:
        ModelError: when a file is broken, or names and shapes are not the model's.
    """
    prefix = setup.base.prefix
    found: Tree = {}
    lora = _tensors(folder / "adapter_model.safetensors")
    found |= {prefix + name.removeprefix(PEFT): value for name, value in lora.items()}
    plain = _tensors(folder / "model.safetensors")
    found |= {prefix + name: value for name, value in plain.items()}
    found |= _tensors(folder / "head.safetensors")
    # Written for readers without Atoll, which makes them again from the seed.
    fixed = {name for name, _ in setup.base.model.named_buffers()}
    values = {name: value for name, value in found.items() if name not in fixed}
    _check_fit(values, model_values(setup.start.server), setup, folder)
    return values


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


def _stand_in(experiment: Experiment, labels: list[str] | None) -> FederatedData:
    """A federation of one made-up row: enough to build the model without anyone's data."""
    row, kind = task_of(experiment).row(labels)
    return FederatedData(
        clients=("nobody",),
        skipped=(),
        kind=kind,
        labels=tuple(labels) if labels else None,
        fingerprint="",
        counts={"nobody": ClientCount(1, 0, 1)},
        _read=lambda client: Share([row], [], held_out=False, kind=kind),
        _common=Common(),
    )


def _compare(
    setup: Setup, record: dict[str, Any], *, note: Callable[[str], None], with_data: bool
) -> None:
    """Say so where the base model or the data are no longer those of the run."""
    prints = record["fingerprints"]
    if fingerprint(setup.base.backbone) != prints["base"]:
        note(f"{setup.base.source.hub_id} has other weights than when the run was trained")
    if with_data and setup.data.fingerprint != prints["data"]:
        note(f"{setup.experiment.data.path} holds other rows than when the run was trained")


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        return {}
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error


def _check_fit(values: Tree, like: Tree, setup: Setup, folder: Path) -> None:
    model = setup.base.source.hub_id
    for name in like:
        if name not in values:
            raise ModelError(f"{folder} holds no {name}, which the adapter of {model} needs")
    for name, value in values.items():
        if name not in like:
            raise ModelError(f"{folder} holds {name}, which has no place in {model}")
        if value.shape != like[name].shape:
            raise ModelError(
                f"{folder}: {name} is {tuple(value.shape)}, but {model} needs "
                f"{tuple(like[name].shape)}"
            )
