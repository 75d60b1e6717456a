"""The trained values of an adapter folder, checked against the model that they are for."""

from __future__ import annotations

from pathlib import Path

from atoll.adapters.stored import check_stored, stored_values
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.tree import Tree

__all__ = ["read_adapter"]


def read_adapter(setup: Setup, folder: Path) -> Tree:
    """The trained values in an adapter folder, under the model's names.

    Raises:
        ModelError: when a file is broken, or names and shapes are not the model's.
    """
    values = stored_values(setup.base, setup.built.peft, folder)
    like = model_values(setup.start.server)
    check_stored(values, like, folder, model=setup.base.source.hub_id)
    return values
