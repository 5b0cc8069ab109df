"""`webdancer`, and `python -m webdancer`."""

from webdancer.fast_malloc import preload


def main() -> None:
    """Run the command line, over a fast malloc where it computes."""
    preload()  # before anything large is imported
    from webdancer.cli import main as run

    run()


if __name__ == "__main__":
    main()
