"""The smallest sum that clients let a server see, for which their shares of noise are made."""

from __future__ import annotations

import math

from atoll.accounting.grid import Sum
from atoll.config.privacy import Privacy
from atoll.errors import ConfigError
from atoll.protection.cohorts import Drawing
from atoll.secagg import Terms

__all__ = ["smallest_sum", "terms_of"]


def terms_of(settings: Privacy, drawing: Drawing) -> Terms:
    """What clients hold a sum to: no fewer than stay of a cohort that is small by chance."""
    stay = math.ceil((1 - settings.dropping) * drawing.usual - 1e-9)
    return Terms(settings.corrupt, settings.dropping, max(stay, settings.min_survivors))


def smallest_sum(settings: Privacy, drawing: Drawing, clip: float, values: int) -> Sum:
    """That of updates with so many values.

    Raises:
        ConfigError: for cohorts that are too small for it.
    """
    most, terms = drawing.most, terms_of(settings, drawing)
    if most < terms.floor:
        raise ConfigError(
            f"privacy.mechanism is distributed, and a round asks {most} clients, of whom "
            f"{terms.floor} must answer (privacy.min_survivors, privacy.dropping); ask more clients"
        )
    return Sum(clip, values, most, terms.floor, terms.of(most)[0])
