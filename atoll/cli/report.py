"""A summary for people: the table, whether federating helped, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from atoll.cli.output import bytes_text, command_line, seconds_text
from atoll.experiment.words import counted

__all__ = ["show_arms", "show_run", "verdict"]

ARMS = {"federated": "federated", "local": "local only", "pooled": "pooled"}
LOWER_IS_BETTER = frozenset({"perplexity"})


def show_run(summary: Mapping[str, Any], path: Path, *, common_test: bool) -> None:
    """All that `atoll run` says at its end."""
    arms = {"federated": summary["final"], **summary["baselines"]}
    show_arms(summary, arms, common_test=common_test)
    lines = [
        *filter(None, [verdict(summary)]),
        f"{counted(summary['num_rounds'], 'round')}, "
        f"{counted(summary['exchanges'], 'statistics exchange')}: "
        f"{bytes_text(summary['bytes_up'])} up, {bytes_text(summary['bytes_down'])} down, "
        f"{seconds_text(summary['seconds'])}",
        f"Everything is in {path}",
        "Next:",
        f"  {command_line('atoll', 'eval', path)}",
        f'  {command_line("atoll", "predict", path)} --text "..."',
        "  atoll init classify",
    ]
    _say("\n".join(lines))


def show_arms(
    summary: Mapping[str, Any], arms: Mapping[str, float | None], *, common_test: bool
) -> None:
    """One row for each way to a model."""
    metric = summary["metric"]
    where = "common test set" if common_test else "all held-out rows"
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(metric)
    for title in (where, "own rows: mean", "worst client", "spread"):
        table.add_column(title, justify="right")
    for name, title in ARMS.items():
        own = summary["own"].get(name)
        if name in arms and (arms[name] is not None or own is not None):
            values = [arms[name], *((own or {}).get(key) for key in ("mean", "worst", "spread"))]
            table.add_row(title, *(_number(value, metric) for value in values))
    console = Console(highlight=False)
    console.print(table)
    console.print()


def verdict(summary: Mapping[str, Any]) -> str | None:
    """Did federating help? None where nothing was trained alone to compare with."""
    sign = -1 if summary["metric"] in LOWER_IS_BETTER else 1
    gains = [
        sign * (client["federated"] - client["local"])
        for client in summary["per_client"].values()
        if client.get("federated") is not None and client.get("local") is not None
    ]
    if not gains:
        return None
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    answer = "helped" if better > worse else "did not help" if worse > better else "was a draw"
    do = "does" if worse == 1 else "do"
    text = (
        f"Federating {answer}: on their own held-out rows, {better} of {len(gains)} clients do "
        f"better with the federated model than with their own, {worse} {do} worse"
    )
    local = summary["baselines"]["local"]
    if local is None:
        return f"{text}."
    numbers = [_number(value, summary["metric"]) for value in (summary["final"], local)]
    return f"{text}; on everyone's test rows it is {numbers[0]} against {numbers[1]}."


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if metric in LOWER_IS_BETTER else f"{value:.3f}"


def _say(text: str) -> None:
    Console(highlight=False).print(text, markup=False, soft_wrap=True)
