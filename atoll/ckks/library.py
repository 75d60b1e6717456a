"""TenSEAL, which is installed only where sums are encrypted."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from atoll.errors import ConfigError

__all__ = ["check_installed", "library"]


def check_installed() -> None:
    """Refuse encrypted sums where TenSEAL is not.

    Raises:
        ConfigError: says what to install.
    """
    if importlib.util.find_spec("tenseal") is None:
        raise ConfigError(
            "privacy.secure_aggregation is ckks, which needs TenSEAL, and it is not installed; "
            "run: pip install 'atoll[he]', or set secure_aggregation to true, which needs nothing"
        )


def library() -> ModuleType:
    """The package.

    Raises:
        ConfigError: as `check_installed`.
    """
    check_installed()
    import tenseal

    found: ModuleType = tenseal
    return found
