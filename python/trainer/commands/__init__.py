"""The commands of `pile-train`: each module has one, named `command`."""
