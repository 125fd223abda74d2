"""Charts, and pages with charts and tables or with marked spans of a text."""
