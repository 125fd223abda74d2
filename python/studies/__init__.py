"""Studies of trained runs: what a model memorized of the tokens it saw, and the report of a whole run."""
