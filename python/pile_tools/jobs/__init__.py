"""One module per job: its config and `run(config) -> Manifest`."""
