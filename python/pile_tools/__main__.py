"""The program `pile-tools`; also `python -m pile_tools`."""

from pile_tools.start import start


def main() -> None:
    """The console script."""
    start("pile_tools.cli")


if __name__ == "__main__":
    main()
