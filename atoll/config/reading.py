"""A YAML file of ours as plain values with places, and what is wrong with it, in sentences."""

from __future__ import annotations

import difflib
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from atoll.config.messages import problems
from atoll.config.words import shown
from atoll.config.yaml_text import Source, parse
from atoll.errors import ConfigError

__all__ = ["mapping", "read", "refusal"]


def read(path: Path, *, needs: str) -> Source:
    """The values of a file and their places; `needs` says what a file with nothing in it lacks."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_neighbour(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder{_neighbour(path / path.name)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    source = parse(text, at=lambda line: f"{path}:{line}")
    if source.tree is None:
        raise ConfigError(f"{path}: the file is empty; {needs}")
    return source


def mapping(source: Source, *, expected: str) -> dict[str, JsonValue]:
    """The file's keys and values; `expected` says which keys there are."""
    if not isinstance(source.tree, dict):
        raise ConfigError(
            f"{source.positions['']}: the file is {shown(source.tree)}; expected {expected}"
        )
    return source.tree


def refusal(
    error: ValidationError, *, tree: JsonValue, source: Source, model: type[BaseModel]
) -> ConfigError:
    """All problems, those of the file in the order of its lines."""
    # Only a file with an error needs the JSON schema, which takes longer than reading the file.
    schema = model.model_json_schema()
    order = {key: index for index, key in enumerate(source.positions)}
    lines: list[tuple[int, str]] = []
    for problem in problems(error, tree=tree, schema=schema):
        key = _nearest_given(problem.path, source=source)
        lines.append((order[key], f"{source.positions[key]}: {problem.sentence}"))
    return ConfigError("\n".join([*source.problems, *(line for _, line in sorted(lines))]))


def _neighbour(path: Path) -> str:
    """`; did you mean finetune.yaml?`, from the YAML files of the same folder."""
    folder = path.parent
    if not folder.is_dir():
        return f": the folder {folder} does not exist"
    files = sorted(file.name for file in folder.iterdir() if file.suffix in (".yaml", ".yml"))
    if not files:
        return f"; there is no *.yaml file in {folder.resolve()}"
    near = difflib.get_close_matches(path.name, files, n=1, cutoff=0.0)
    return f"; did you mean {folder / near[0]}?"


def _nearest_given(path: str, *, source: Source) -> str:
    """The key itself, or the first one below it, or the innermost section around it."""
    # A section that only the command line has, as `trian.max_steps=1`, has no line of its own.
    below = next((key for key in source.positions if key.startswith(f"{path}.")), None)
    if path not in source.positions and below is not None:
        return below
    while path and path not in source.positions:
        path = path.rpartition(".")[0]
    return path
