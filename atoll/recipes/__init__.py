"""Experiment files to start from; `atoll recipes` lists them."""
