"""An adapter on disk: PEFT's layout, the head beside it, and the lines that load it."""
