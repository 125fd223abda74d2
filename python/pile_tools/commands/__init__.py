"""One module per command: options -> config -> stage -> summary."""
