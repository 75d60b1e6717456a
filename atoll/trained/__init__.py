"""What is done with a finished run: load it, ask it, export it."""
