"""One module per stage: its config and `run(config) -> Manifest`."""
