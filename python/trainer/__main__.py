"""The program `pile-train`; also `python -m trainer`."""

from pile_tools.start import start


def main() -> None:
    """The console script."""
    start("trainer.cli")


if __name__ == "__main__":
    main()
