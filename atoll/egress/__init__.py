"""The record of what leaves a site, and the manifest of a run; torch is not needed to read them."""
