"""The program `pile-tools`; also `python -m pile_tools`."""

import os

from pile_tools.start import start


def main() -> None:
    """The console script."""
    # Nothing here uses numpy's linear algebra. Where the system starts no more threads, those that OpenBLAS
    # starts at its import end in a SIGINT, as if the user had interrupted the program.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    start("pile_tools.cli")


if __name__ == "__main__":
    main()
