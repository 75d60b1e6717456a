"""One opener for each tracking library: from the beginning of a run to functions that log to it.

Libraries are imported when they are opened. Their own usage reports stay off, as do copies of code,
console and machine details; an environment variable that the user set stands.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LIBRARIES", "Begin", "Tracker"]

Identity = Mapping[str, str]
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Begin:
    """What a tracker is told at first.

    config: the resolved experiment file, as a tree and as text.
    first_round: above 0, the run goes on; `identity` is then what the tracker called it before.
    """

    folder: Path
    config: Mapping[str, Any]
    text: str
    first_round: int = 0
    identity: Identity | None = None


@dataclass(frozen=True)
class Tracker:
    """An open run of a tracking library, and what finds it again.

    log_round: (round, metrics).   finish: (last round, summary).
    close: (whether the run came to its end).   place: where to look at it.
    """

    identity: Identity
    log_round: Callable[[int, Numbers], None]
    finish: Callable[[int, Numbers], None]
    close: Callable[[bool], None]
    place: str = ""


def _tensorboard(begin: Begin) -> Tracker:
    """Event files in RUN/tensorboard; rounds that are done again replace those of before."""
    from torch.utils.tensorboard import SummaryWriter

    folder = begin.folder / "tensorboard"
    writer = SummaryWriter(str(folder), purge_step=begin.first_round if folder.is_dir() else None)
    if begin.identity is None:
        writer.add_text("experiment", f"```yaml\n{begin.text}\n```", 0)

    def log(round_: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, round_)
        # A run that is killed has shown its rounds.
        writer.flush()

    def finish(round_: int, numbers: Numbers) -> None:
        log(round_, {f"summary/{name}": value for name, value in numbers.items()})

    place = shlex.join(["tensorboard", "--logdir", str(folder)])
    return Tracker({"folder": folder.name}, log, finish, lambda ended: writer.close(), place)


def _mlflow(begin: Begin) -> Tracker:
    """A run at MLFLOW_TRACKING_URI, in MLFLOW_EXPERIMENT_NAME or `atoll`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A server that has gone costs seconds of a round, not minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    client = MlflowClient()
    if begin.identity is None:
        run = client.create_run(_experiment(client), run_name=begin.folder.name).info.run_id
        settings = [Param(_plain(key), value[:500]) for key, value in _flat(begin.config).items()]
        for start in range(0, len(settings), 100):
            client.log_batch(run, params=settings[start : start + 100])
        client.log_text(run, begin.text, "experiment.yaml")
        before = -1
    else:
        run = begin.identity["run_id"]
        client.update_run(run, status="RUNNING")
        before = max((one.step for one in client.get_metric_history(run, "bytes_up")), default=-1)

    def log(round_: int, numbers: Numbers, *, prefix: str = "") -> None:
        now = int(time.time() * 1000)
        found = [Metric(_plain(prefix + name), x, now, round_) for name, x in numbers.items()]
        client.log_batch(run, metrics=found)

    def log_round(round_: int, numbers: Numbers) -> None:
        # A run that goes on does its last rounds again, to the same numbers.
        if round_ > before:
            log(round_, numbers)

    return Tracker(
        {"run_id": run},
        log_round,
        lambda round_, numbers: log(round_, numbers, prefix="summary/"),
        lambda ended: client.set_terminated(run, "FINISHED" if ended else "FAILED"),
    )


def _experiment(client: Any) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "atoll")
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _wandb(begin: Begin) -> Tracker:
    """A run in WANDB_PROJECT or `atoll`; WANDB_MODE=offline keeps it in RUN/wandb."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "atoll"),
        name=os.environ.get("WANDB_NAME", begin.folder.name),
        id=begin.identity["id"] if begin.identity else None,
        resume="allow" if begin.identity else None,
        dir=str(begin.folder),
        config=dict(begin.config),
        reinit="create_new",
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
        ),
    )

    def finish(round_: int, numbers: Numbers) -> None:
        run.summary.update({f"summary/{name}": value for name, value in numbers.items()})

    return Tracker(
        {"id": run.id},
        # Steps never go back: rounds that are done again are not counted twice.
        lambda round_, numbers: run.log(dict(numbers), step=round_),
        finish,
        lambda ended: run.finish(exit_code=0 if ended else 1),
        run.url or shlex.join(["wandb", "sync", str(Path(run.dir).parent)]),
    )


def _flat(tree: Any, path: str = "") -> dict[str, str]:
    if not isinstance(tree, Mapping) or not tree:
        return {path: str(tree)}
    return {
        key: value
        for name, inner in tree.items()
        for key, value in _flat(inner, f"{path}.{name}" if path else str(name)).items()
    }


def _plain(name: str) -> str:
    """A name of characters that MLflow takes: `recall@5` is `recall_5`."""
    return re.sub(r"[^\w\-./ ]", "_", name)[:250]


LIBRARIES: Mapping[str, Callable[[Begin], Tracker]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
