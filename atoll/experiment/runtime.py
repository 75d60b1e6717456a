"""Where the clients of a run live, as the experiment file says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

from atoll.config import resolve
from atoll.core import Runtime
from atoll.experiment.checks import PLACES
from atoll.experiment.setup import Setup

__all__ = ["open_runtime"]

Opened = Callable[[Setup, Path, Callable[[str], None]], AbstractContextManager[Runtime]]


@contextmanager
def open_runtime(setup: Setup, path: Path, note: Callable[[str], None]) -> Iterator[Runtime]:
    """The runtime of a run whose directory, with its experiment.yaml, is `path`.

    note: hears what a user should know, as a worker that died.

    Raises:
        AtollError: a worker that cannot be started, or that loads something else than this run.
    """
    loaded, call = setup.loaded, setup.experiment.federation.runtime
    made = resolve(call, package=PLACES, where=loaded.where)
    with cast(Opened, made)(setup, path, note) as runtime:
        yield runtime
