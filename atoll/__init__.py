"""Atoll: federated foundation models over data that never leaves its owner.

`load`, `federate`, `open_run` and `predict` do from Python what the command line does: `atoll.api`.
"""

import importlib

__all__ = ["__version__"]

__version__ = "0.1.0"

_API = ("federate", "load", "open_run", "predict")


def __getattr__(name: str) -> object:
    """The functions of `atoll.api`, which imports torch: only when one of them is used."""
    if name not in _API:
        raise AttributeError(f"module 'atoll' has no attribute '{name}'")
    found: object = vars(importlib.import_module("atoll.api"))[name]
    return found
