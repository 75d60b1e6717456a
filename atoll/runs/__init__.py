"""One run: its directory, its rounds, its checkpoints, its summary."""
