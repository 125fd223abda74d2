"""One module per command: options -> config -> job -> summary."""
