"""From an experiment file to a typed experiment, and back."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from atoll.config.overrides import override
from atoll.config.schema import Experiment
from atoll.config.words import shown
from atoll.config.yaml_text import Source, parse, write
from atoll.errors import ConfigError

__all__ = ["Loaded", "dump", "load"]


@dataclass(frozen=True)
class Loaded:
    """An experiment, and where each of its values was given."""

    experiment: Experiment
    path: Path
    positions: Mapping[str, str]

    def where(self, key: str) -> str:
        """`finetune.yaml:7`, `on the command line` or `default`, for a key as `train.max_steps`."""
        return self.positions.get(key, "default")


def load(path: str | Path, *, overrides: Sequence[str] = ()) -> Loaded:
    """Read a file and `section.key=value` overrides; all problems are reported at once."""
    path = Path(path)
    source = override(_read(path), assignments=overrides)
    if not isinstance(source.tree, dict):
        raise ConfigError(
            f"{source.positions['']}: the file is {shown(source.tree)}; expected sections: "
            "model, data, adapter, ..."
        )
    # A section whose values are all commented out is null: it keeps its defaults.
    given = {key: value for key, value in source.tree.items() if value is not None}
    tree: JsonValue = {"model": {}, "data": {}, "output_dir": f"runs/{path.stem}", **given}
    try:
        experiment = Experiment.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError(_report(error, tree=tree, source=source)) from None
    if source.problems:
        raise ConfigError("\n".join(source.problems))
    return Loaded(experiment, path, source.positions)


def dump(experiment: Experiment) -> str:
    """The resolved experiment as YAML: every value, in the order of the schema."""
    return write(experiment.model_dump(mode="json"))


def _read(path: Path) -> Source:
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
        raise ConfigError(
            f"{path}: the file is empty; it needs at least model.name_or_path and data.path"
        )
    return source


def _neighbour(path: Path) -> str:
    """`; did you mean finetune.yaml?`, from the experiment files of the same folder."""
    folder = path.parent
    if not folder.is_dir():
        return f": the folder {folder} does not exist"
    files = sorted(file.name for file in folder.iterdir() if file.suffix in (".yaml", ".yml"))
    if not files:
        return f"; there is no *.yaml file in {folder.resolve()}"
    near = difflib.get_close_matches(path.name, files, n=1, cutoff=0.0)
    return f"; did you mean {folder / near[0]}?"


def _report(error: ValidationError, *, tree: JsonValue, source: Source) -> str:
    """All problems, those of the file in the order of its lines."""
    # Only a file with an error needs the JSON schema, which takes longer than reading the file.
    from atoll.config.json_schema import schema
    from atoll.config.messages import problems

    order = {key: index for index, key in enumerate(source.positions)}
    lines: list[tuple[int, str]] = []
    for problem in problems(error, tree=tree, schema=schema()):
        key = _nearest_given(problem.path, source=source)
        lines.append((order[key], f"{source.positions[key]}: {problem.sentence}"))
    return "\n".join([*source.problems, *(line for _, line in sorted(lines))])


def _nearest_given(path: str, *, source: Source) -> str:
    """The key itself, or the innermost section around it that has a position."""
    while path and path not in source.positions:
        path = path.rpartition(".")[0]
    return path
