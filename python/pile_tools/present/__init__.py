"""Charts, and pages that mark spans in a text."""
