"""What a run and its workers must agree on, or their numbers are of different runs."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from atoll.experiment.setup import Setup
from atoll.models.locate import fingerprint
from atoll.runtimes.messages import PROTOCOL, Identity

__all__ = ["identity"]


def identity(setup: Setup, resolved: str) -> Identity:
    """Versions, and fingerprints of data, base and `resolved`, the text of experiment.yaml."""
    return Identity(
        protocol=PROTOCOL,
        atoll=version("atoll"),
        torch=version("torch"),
        experiment=hashlib.sha256(resolved.encode()).hexdigest(),
        data=setup.data.fingerprint,
        base=fingerprint(setup.base.backbone),
    )
