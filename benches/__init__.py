"""Comparisons with peers: `make bench SHARDS=... TOKENIZER=...` writes RESULTS.md."""
