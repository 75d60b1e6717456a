"""From an experiment file to everything that a run needs."""
