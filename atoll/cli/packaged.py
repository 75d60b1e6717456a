"""The experiment files that come with Atoll."""

from __future__ import annotations

import difflib
from importlib.resources import files
from importlib.resources.abc import Traversable

from atoll.errors import ConfigError

__all__ = ["EDIT", "about", "edits", "find_recipe", "names"]

EDIT = "# EDIT"
"""Marks the lines of a recipe that a user has to change."""


def names() -> list[str]:
    """The recipes, sorted."""
    found = (item.name for item in files("atoll.recipes").iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def find_recipe(name: str) -> Traversable:
    """The file of a recipe.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f'; did you mean "{near[0]}"?' if near else "."
        raise ConfigError(f'there is no recipe "{name}"{hint} Recipes: {", ".join(names())}')
    return files("atoll.recipes") / f"{name}.yaml"


def about(text: str) -> str:
    """A recipe's first comment line."""
    return text.partition("\n")[0].removeprefix("#").strip()


def edits(text: str) -> list[tuple[int, str]]:
    """(line number, line) of what a user has to change."""
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if EDIT in line and ":" in line]
