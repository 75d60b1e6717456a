"""What is done to a payload between client and server, in order, and undone in reverse.

Each name is a factory that the experiment file may name under `federation.stages`,
and those that pack values under `federation.broadcast_stages` too, for the way down.
"""

from atoll.stages.clipping import clip
from atoll.stages.quantisation import quantise
from atoll.stages.sparsification import top_k
from atoll.stages.weighing import by_examples, uniform
from atoll.stages.withholding import withhold

__all__ = ["by_examples", "clip", "quantise", "top_k", "uniform", "withhold"]
