"""How a cohort's replies become one: folds that hold for any number of clients, also none.

Each name is a factory that the experiment file may name as `federation.aggregator`.
"""

from atoll.aggregators.averaging import mean
from atoll.aggregators.coordinates import median, trimmed_mean
from atoll.aggregators.summing import on_grid

__all__ = ["mean", "median", "on_grid", "trimmed_mean"]
