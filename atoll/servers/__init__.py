"""How an aggregated update moves the server's values.

Each name is a factory that the experiment file may name as `federation.server`. `learning_rate`
multiplies the aggregated update Δ, which is local minus broadcast values: Δ is the negative of
what an optimiser calls a gradient, and w + Δ is the plain average of the clients.
An empty cohort is a step with Δ = 0: only momentum that is left moves the values.
"""

from atoll.servers.adaptive import adagrad, adam, yogi
from atoll.servers.sgd import average, momentum

__all__ = ["adagrad", "adam", "average", "momentum", "yogi"]
