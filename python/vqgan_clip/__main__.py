"""The program `vqgan-clip`; also `python -m vqgan_clip`."""

from pile_tools.start import start


def main() -> None:
    """The console script."""
    start("vqgan_clip.cli")


if __name__ == "__main__":
    main()
