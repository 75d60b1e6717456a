"""Which learning rate, by method and size of the model."""
