"""From an experiment file to a typed experiment, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from atoll.config.idle import idle, trains, without
from atoll.config.overrides import COMMAND_LINE, override
from atoll.config.reading import mapping, read, refusal
from atoll.config.schema import Experiment
from atoll.config.yaml_text import Source, write
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
    source = read(path, needs="it needs at least model.name_or_path and data.path")
    source = override(source, assignments=overrides)
    values = mapping(source, expected="sections: model, data, adapter, ...")
    # A section whose values are all commented out is null: it keeps its defaults.
    given = {key: value for key, value in values.items() if value is not None}
    tree: JsonValue = {"model": {}, "data": {}, "output_dir": f"runs/{path.stem}", **given}
    try:
        experiment = Experiment.model_validate_json(
            # A user's own functions may stand beside the file.
            json.dumps(tree), context={"folder": str(path.parent.resolve())}
        )  # fmt: skip
    except ValidationError as error:
        raise refusal(error, tree=tree, source=source, model=Experiment) from None
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
