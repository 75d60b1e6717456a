"""What a trained model says of new rows: labels, tags, numbers, filled masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.errors import DataError
from atoll.local.infer import forward_batches
from atoll.models.objective import Example
from atoll.tasks import task_of
from atoll.tasks.kind import Reading
from atoll.trained.load_run import TrainedRun

__all__ = ["readings"]

Row = Mapping[str, Any]


def readings(run: TrainedRun, rows: Sequence[Row], *, top: int) -> list[dict[str, Any]]:
    """What the model says of each row, with at most `top` guesses; labels of rows are not read.

    Raises:
        DataError: for a row that holds nothing to say something of, or is longer than rows may be.
    """
    setup = run.setup
    task = task_of(setup.experiment)
    assert task.read is not None, "a model that writes is not read"
    asked = [{name: row[name] for name in task.asks if row.get(name) is not None} for row in rows]
    found: dict[int, dict[str, Any]] = {}
    for places, batch, outputs in forward_batches(setup.bench, run.values, _encoded(run, asked)):
        reading = Reading(
            rows=[asked[place] for place in places],
            labels=setup.data.labels or (),
            tokenizer=setup.base.tokenizer,
            top=top,
            moments=setup.data.moments,
            experiment=setup.experiment,
        )
        found.update(zip(places, task.read(outputs, batch, reading), strict=True))
    return [found[place] for place in range(len(rows))]


def _encoded(run: TrainedRun, asked: Sequence[Row]) -> list[Example]:
    encode = run.setup.bench.objective.encode
    examples = encode(asked)
    if len(examples) < len(asked):
        number = next(i for i, row in enumerate(asked, start=1) if not encode([row]))
        raise DataError(f"row {number} holds nothing to predict for; write at least one word")
    return examples
