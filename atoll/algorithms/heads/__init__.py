"""Heads solved exactly from sums over clients' features: statistics exchanges, not rounds."""
