"""One folder a question; each folder's README has the command and the latest table."""
