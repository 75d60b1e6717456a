"""From an experiment file to a typed experiment, and back."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from atoll.config.idle import idle, trains, without
from atoll.config.overrides import COMMAND_LINE, override
from atoll.config.schema import Experiment
from atoll.config.words import shown
from atoll.config.yaml_text import Source, parse, write
from atoll.errors import ConfigError

__all__ = ["Loaded", "dump", "load"]


@dataclass(frozen=True)
class Loaded:
    """An experiment, and where each of its values was given; `notes`: what a user should know."""

    experiment: Experiment
    path: Path
    positions: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def where(self, key: str) -> str:
        """`finetune.yaml:7`, `on the command line` or `default`, for a key as `train.max_steps`.

        A key that was not given itself stands where the first one below it was.
        """
        inside = (place for name, place in self.positions.items() if name.startswith(f"{key}."))
        return self.positions.get(key) or next(inside, "default")


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
        experiment = Experiment.model_validate_json(
            # A user's own functions may stand beside the file.
            json.dumps(tree), context={"folder": str(path.parent.resolve())}
        )  # fmt: skip
    except ValidationError as error:
        raise ConfigError(_report(error, tree=tree, source=source)) from None
    found = [*source.problems, *_refused(experiment, source)]
    if found:
        raise ConfigError("\n".join(found))
    experiment, notes = _settled(experiment)
    return Loaded(experiment, path, source.positions, notes)


def _refused(experiment: Experiment, source: Source) -> Iterator[str]:
    """Values that nothing reads.

    One of the file stands where the command line made it idle: the file is a starting point.
    """
    order = list(source.positions)
    unread = [one for one in idle(experiment) if one.key in order]
    for one in sorted(unread, key=lambda one: order.index(one.key)):
        place, cause = (source.positions.get(key) for key in (one.key, one.cause))
        if cause != COMMAND_LINE or place == COMMAND_LINE:
            yield f"{place}: {one.problem(experiment).sentence}"


def _settled(experiment: Experiment) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment without values that nothing reads, and what a user should know of it."""
    experiment = without(experiment, list(idle(experiment)))
    federation = experiment.federation
    if trains(experiment) or federation.num_rounds == 0:
        return experiment, ()
    settled = federation.model_copy(update={"num_rounds": 0})
    return experiment.model_copy(update={"federation": settled}), (
        "adapter.method is none and the head is solved from statistics: nothing trains in "
        f"rounds, so that federation.num_rounds is 0 instead of {federation.num_rounds}",
    )


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
    """The key itself, or the first one below it, or the innermost section around it."""
    # A section that only the command line has, as `trian.max_steps=1`, has no line of its own.
    below = next((key for key in source.positions if key.startswith(f"{path}.")), None)
    if path not in source.positions and below is not None:
        return below
    while path and path not in source.positions:
        path = path.rpartition(".")[0]
    return path
