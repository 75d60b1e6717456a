"""The smallest sum that clients let a server see, for which their shares of noise are made."""

from __future__ import annotations

from dataclasses import replace

from atoll.accounting.grid import Sum
from atoll.config.privacy import Privacy
from atoll.errors import ConfigError
from atoll.protection.cohorts import Drawing
from atoll.secagg import Terms
from atoll.secagg.degree import spare

__all__ = ["plain_terms", "smallest_sum", "terms_of"]


def plain_terms(settings: Privacy) -> Terms:
    """What clients hold a sum to that needs none of their noise."""
    return Terms(settings.corrupt, settings.dropping, settings.min_survivors)


def terms_of(settings: Privacy, drawing: Drawing) -> Terms:
    """What clients hold a sum to: no fewer than stay of a cohort that is small by chance."""
    plain = plain_terms(settings)
    _, dropping = plain.of(drawing.usual)
    return replace(plain, floor=max(drawing.usual - dropping, settings.min_survivors))


def smallest_sum(settings: Privacy, drawing: Drawing, clip: float, values: int) -> Sum:
    """That of updates with so many values.

    Raises:
        ConfigError: for cohorts that are too small for it.
    """
    most, terms = drawing.most, terms_of(settings, drawing)
    if spare(round(drawing.expected), terms) < 0:
        raise ConfigError(
            f"privacy.mechanism is distributed, and a round asks {drawing.expected:.4g} clients, "
            f"too few for sums of {terms.floor} or more (privacy.min_survivors, privacy.dropping, "
            "privacy.corrupt); ask more clients"
        )
    return Sum(clip, values, most, terms.floor, terms.of(most)[0])
