"""The report of a run: one HTML file, read from the files of its directory."""
