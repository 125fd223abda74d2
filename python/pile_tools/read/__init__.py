"""Finds shards, and reads lists that people write."""
