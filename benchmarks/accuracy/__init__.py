"""Accuracy against rounds, exchanges and bytes."""
