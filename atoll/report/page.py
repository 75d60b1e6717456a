"""The page: everything a run's files say, in one HTML document."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from atoll.report import facts
from atoll.report.curves import curves
from atoll.report.gains import gains
from atoll.report.leak_tables import leak_tables
from atoll.report.leaks import leak_sentences, uncovered
from atoll.report.read import RunFiles
from atoll.report.records import Summary
from atoll.report.tables import (
    arms_table,
    clients_table,
    cost_table,
    failures_table,
    level_of,
    metrics_table,
    rounds_table,
)
from atoll.report.tiles import tiles
from atoll.report.verdict import answer, verdict
from atoll.report.words import legible, signed
from atoll.words import counted

__all__ = ["page"]

OPEN_ROWS = 24
"""Longer tables are folded."""


def page(run: RunFiles) -> str:
    """The report of a run as HTML that needs no other file, no network and no script."""
    folder = files("atoll.report") / "templates"
    parts = {
        name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "macros.html")
    }
    environment = Environment(
        loader=DictLoader(parts),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = signed
    environment.filters["counted"] = counted
    style = Markup((folder / "page.css").read_text(encoding="utf-8"))
    text = environment.get_template("page.html").render(style=style, **_context(run))
    return legible(text)


def _context(run: RunFiles) -> dict[str, Any]:
    summary = run.summary or Summary()
    common = facts.at(run.record, "data.test") is not None
    finished, state = facts.state(run)
    return {
        "name": run.name,
        "finished": finished,
        "state": state,
        "lead": _lead(run),
        "answer": answer(summary),
        "verdict": verdict(summary),
        "untold": summary.secure_sums is not None,
        "tiles": tiles(run, common_test=common),
        "arms": arms_table(summary, common_test=common),
        "metrics": metrics_table(summary, common_test=common),
        "better": "higher" if summary.higher else "lower",
        "bounded": bool(summary.intervals and summary.intervals.federated),
        "level": level_of(summary),
        "gains": gains(summary),
        "clients": clients_table(summary),
        "curves": curves(run),
        "rounds": rounds_table(run),
        "cost": cost_table(run),
        "failures": failures_table(run),
        "skipped": summary.skipped_clients,
        "privacy": facts.privacy(run),
        "leaks": _leaks(run),
        "setup": facts.setup(run),
        "experiment": run.experiment,
        "record": facts.record(run),
        "notes": run.notes,
        "open_rows": OPEN_ROWS,
    }


def _leaks(run: RunFiles) -> dict[str, Any] | None:
    """What an attacker learns; None where nobody measured it."""
    if run.audit is None:
        return None
    return {
        "refuted": bool(run.audit.refuted),
        "sentences": leak_sentences(run.audit),
        "tables": list(leak_tables(run.audit)),
        "uncovered": uncovered(run.audit),
    }


def _lead(run: RunFiles) -> str:
    """`classification · builtin:minilm · lora · fedavg · 20 clients`."""
    known = dict(facts.setup(run))
    parts = [known.get(name) for name in ("task", "model", "method", "algorithm")]
    clients = known.get("clients")
    noun = "client" if clients == "1" else "clients"
    parts += [f"{clients} {noun}" if clients else None, counted(facts.rounds_done(run), "round")]
    return " · ".join(part for part in parts if part)
