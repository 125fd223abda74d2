"""One page about a run: its data, tokens, order, training, and what it memorized."""
