"""The program `pile-study`; also `python -m studies`."""

from pile_tools.start import start


def main() -> None:
    """The console script."""
    start("studies.cli")


if __name__ == "__main__":
    main()
