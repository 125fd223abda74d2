"""The sources of `pile-tools sample`: text installed on the machine, manual pages, and canaries."""
