"""`atoll eval`: a finished run, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.output import Format, FormatOption, emit, note
from atoll.cli.process import load_torch

if TYPE_CHECKING:
    from atoll.trained.load_run import TrainedRun

__all__ = ["evaluate"]


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    data: Annotated[
        Path | None, typer.Option("--data", help="Rows to evaluate on, instead of the run's own.")
    ] = None,
    output_format: FormatOption = Format.text,
) -> None:
    """Measure a finished run again, or on new rows.

    RUN is a run directory. Without --data the run's own test rows are read again, from where its
    experiment file says.
    """
    load_torch()
    from atoll.trained.load_run import load_run

    trained = load_run(run, note=note, with_data=data is None)
    found = _own(trained) if data is None else _on_file(trained, data)
    if output_format is Format.json:
        emit({"run": str(run), "data": None if data is None else str(data), **found})
    elif data is not None:
        from atoll.report.words import number

        numbers = ", ".join(f"{n} {number(x, digits=4)}" for n, x in found["metrics"].items())
        typer.echo(f"{numbers} on {found['rows']} rows of {data}")
    else:
        from atoll.cli.summary_text import show_arms

        common = trained.setup.data.test() is not None
        show_arms(found, {"federated": found["final"]}, common_test=common)


def _own(trained: TrainedRun) -> dict[str, Any]:
    """The run's own common test set and held-out rows."""
    from atoll.runs.compare import compare
    from atoll.runs.summary import per_client, summarize

    comparison = compare(
        trained.setup, {"adapter": trained.values}, rounds=0, step=lambda *step: None, note=note
    )
    summary = summarize(trained.setup, comparison, lines=[], seconds=0.0)
    clients = {
        name: {key: client[key] for key in ("test", "federated")}
        for name, client in per_client(trained.setup, comparison).items()
    }
    return {
        **{key: summary[key] for key in ("task", "metric", "final")},
        "own": {"federated": summary["own"]["federated"]},
        "per_client": clients,
    }


def _on_file(trained: TrainedRun, path: Path) -> dict[str, Any]:
    from atoll.local.infer import evaluate as score

    bench = trained.setup.bench
    rows = trained.rows(path)
    found = score(bench, trained.values, bench.objective.encode(rows))
    metric = bench.objective.metric
    numbers = dict(metric.finals(found.sums, found.count)) if found.count else {metric.name: None}
    return {
        "task": trained.setup.experiment.model.task,
        "metric": metric.name,
        "final": numbers[metric.name],
        "metrics": numbers,
        "rows": len(rows),
    }
