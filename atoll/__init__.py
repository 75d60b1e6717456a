"""Atoll: federated foundation models over data that never leaves its owner."""

__version__ = "0.1.0"
