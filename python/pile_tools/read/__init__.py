"""Shards and hand-written lists."""
