"""How much of its training data a model gives back word by word, checkpoint after checkpoint."""
