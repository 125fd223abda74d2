"""How much of its training data a model reproduces token by token, checkpoint after checkpoint."""
