"""How a cohort's replies become one: folds that hold for any number of clients, also none.

Each name is a factory that the experiment file may name as `federation.aggregator`.
"""

from atoll.aggregators.averaging import mean
from atoll.aggregators.bounded import norm_bound
from atoll.aggregators.centres import centred_clipping, geometric_median
from atoll.aggregators.coordinates import median, trimmed_mean
from atoll.aggregators.groups import grouped, nnm
from atoll.aggregators.krum import bulyan, krum, multi_krum
from atoll.aggregators.summing import on_grid

__all__ = [
    "bulyan",
    "centred_clipping",
    "geometric_median",
    "grouped",
    "krum",
    "mean",
    "median",
    "multi_krum",
    "nnm",
    "norm_bound",
    "on_grid",
    "trimmed_mean",
]
