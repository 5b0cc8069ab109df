"""`webdancer`, and `python -m webdancer`."""

import sys

from webdancer.fast_malloc import preload

_COMPUTING = frozenset({"quickstart", "run", "sft", "rl", "eval", "pretrain", "reproduce", "ask", "serve"})
"""Subcommands that may train or generate here."""


def main() -> None:
    """Run the command line, over a fast malloc where it computes."""
    if len(sys.argv) > 1 and sys.argv[1] in _COMPUTING:
        preload()  # before anything large is imported
    from webdancer.cli import main as run

    run()


if __name__ == "__main__":
    main()
