"""A packaged recipe with values of its own, run as `atoll run` runs it, and what it cost."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from atoll.config import Loaded, load
from atoll.experiment.setup import prepare
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer

__all__ = ["recipe_with", "run_recipe"]


def recipe_with(recipe: str, values: Sequence[str], folder: Path) -> Loaded:
    """The recipe, as `atoll init` writes it into a folder, with values as they are typed."""
    file = folder / f"{recipe}.yaml"
    packaged = files("atoll") / "recipes" / file.name
    file.write_text(packaged.read_text(encoding="utf-8"), encoding="utf-8")
    return load(file, overrides=[*values, f"output_dir={folder}/run"])


def run_recipe(recipe: str, values: Sequence[str]) -> dict[str, Any]:
    """summary.json, the lines of rounds.jsonl, and seconds: of the rounds, and of all of it."""
    start, cpu = time.perf_counter(), time.process_time()
    marks = [cpu]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup = prepare(recipe_with(recipe, values, folder), note=print)
        marks.append(time.process_time())

        def told(line: object) -> None:
            print(line, flush=True)
            marks.append(time.process_time())

        summary = run_experiment(setup, folder / "run", Observer(note=print, round=told))
        lines = (folder / "run" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    setup.bench.model.close()
    return {
        "summary": summary,
        "rounds": [json.loads(line) for line in lines],
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "cpu_seconds_rounds": round(marks[-1] - marks[1], 1),
    }
