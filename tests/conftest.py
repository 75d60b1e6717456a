"""Makes `tests.support` importable, and tiny models that are made once a session."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# How long an example takes is no matter of whether it is right.
settings.register_profile("atoll", deadline=None)
settings.load_profile("atoll")
sys.path.insert(0, str(Path(__file__).parents[1]))
# Tests run side by side: a thread each, also in what they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_STARTUP = str(Path(__file__).parent / "support" / "startup")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_STARTUP, os.environ.get("PYTHONPATH"))))
# That is for what tests start; their own workers, which start with it, try 8 bits too.
if sys.modules.get("torchao", sys) is None:
    del sys.modules["torchao"]
# A shell lets what it starts in the background ignore Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from tests.support.gallery import Gallery
    from tests.support.models import Zoo


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests of federations wait for each other's processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Folders of tiny models, each made when it is first asked for."""
    from tests.support.models import Zoo

    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Folders of tiny models that see, each made when it is first asked for."""
    from tests.support.gallery import Gallery

    return Gallery(tmp_path_factory.mktemp("gallery"))
