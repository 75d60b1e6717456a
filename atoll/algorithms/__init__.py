"""The catalogue: one published method a file, each a factory named as its file."""
