"""`atoll recipes` and `atoll init`: experiment files to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.output import Format, FormatOption, command_line, emit
from atoll.cli.packaged import EDIT, about, edits, find_recipe, names
from atoll.errors import ConfigError

__all__ = ["init", "recipes"]


def recipes(output_format: FormatOption = Format.text) -> None:
    """List the experiment files that come with Atoll."""
    found = {name: about(find_recipe(name).read_text(encoding="utf-8")) for name in names()}
    if output_format is Format.json:
        emit([{"name": name, "about": line} for name, line in found.items()])
        return
    width = max(map(len, found))
    for name, line in found.items():
        typer.echo(f"{name:{width}}  {line}")
    typer.echo("\natoll run NAME runs one; atoll init NAME copies it here, to be changed.")


def init(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", hidden=True)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default RECIPE.yaml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    output_format: FormatOption = Format.text,
) -> None:
    """Copy a recipe here, to be edited.

    RECIPE is one of `atoll recipes`.
    """
    from atoll.disk.files import write_text

    text = find_recipe(recipe).read_text(encoding="utf-8")
    path = output or Path(f"{recipe}.yaml")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file with -o {path / recipe}.yaml")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; overwrite it with --force, or name another file with -o")
    write_text(path, text)
    if output_format is Format.json:
        lines = [{"line": number, "text": line} for number, line in edits(text)]
        emit({"path": str(path), "recipe": recipe, "edit": lines})
        return
    typer.echo(f"Wrote {path}.")
    if edits(text):
        typer.echo("Edit these lines:")
    for number, line in edits(text):
        typer.echo(f"  {path}:{number}  {line.partition(EDIT)[0].strip()}")
    typer.echo(f"Then: {command_line('atoll', 'run', path)}")
