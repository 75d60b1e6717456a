"""`atoll privacy`: what was spent, and whether the ledger of it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.output import Format, FormatOption, emit
from atoll.errors import PrivacyError

if TYPE_CHECKING:
    from atoll.ledger import Told

__all__ = ["privacy", "show", "verify"]

privacy = typer.Typer(
    help="Look at what was spent of privacy.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
PLACES = (".", "privacy", "privacy-rows", "ledger")
"""Where a ledger stands in what people name: a ledger's folder, a run's directory, a site's."""
PathArgument = Annotated[Path, typer.Argument(metavar="RUN|FOLDER", hidden=True)]


@privacy.command("show")
def show(path: PathArgument, output_format: FormatOption = Format.text) -> None:
    """Print every release, and what all of them come to.

    RUN is a run's directory; FOLDER is one that holds a ledger.jsonl.
    """
    from atoll.ledger import verified

    told = verified(_folder(path))
    if output_format is Format.json:
        emit({**_as_json(path, told), "lines": [line.model_dump() for line in told.lines]})
        return
    from atoll.cli.privacy_text import show_ledger

    show_ledger(told)


@privacy.command("verify")
def verify(path: PathArgument, output_format: FormatOption = Format.text) -> None:
    """Check that no line was edited, moved or taken away, and count every epsilon again.

    What was changed ends it with exit code 10.
    """
    from atoll.ledger import verified

    told = verified(_folder(path))
    if output_format is Format.json:
        emit(_as_json(path, told))
        return
    from atoll.cli.privacy_text import show_verified

    show_verified(told)


def _folder(path: Path) -> Path:
    from atoll.ledger.lines import FILE

    place = path.parent if path.is_file() else path
    for name in PLACES:
        if (place / name / FILE).is_file():
            return place / name
    raise PrivacyError(
        f"{path} holds no {FILE}: no run that promises an epsilon was there, or privacy.ledger "
        "names another folder; name that one"
    )


def _as_json(path: Path, told: Told) -> Mapping[str, Any]:
    from atoll.accounting.statement import finite

    last = told.lines[-1] if told.lines else None
    releases = [release for _, release in told.releases]
    spent = None if last is None else told.spent(last.delta)
    return {
        "path": str(path),
        "data": told.begin.data,
        "releases": sum(one.steps for one in releases),
        "runs": sorted({line.entry.run for line in told.lines}),
        "unit": releases[0].unit if releases else None,
        "epsilon": 0.0 if last is None else last.epsilon,
        "delta": None if last is None else last.delta,
        "adjacency": None if spent is None else spent.adjacency,
        "readers_epsilon": None if spent is None else finite(spent.readers),
    }
