"""The command line: one thin subcommand a stage. Results go to stdout, progress and messages to stderr."""

import sys

from webdancer.cli import asking, data, running, webs, world  # noqa: F401  # they register their subcommands
from webdancer.cli.common import app, plain
from webdancer.collector import collect_rarely
from webdancer.errors import ConfigError, WebdancerError
from webdancer.pipeline.progress import console

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 stopped by Ctrl-C."""
    collect_rarely()
    try:
        app()
    except WebdancerError as error:
        console.print(f"[bold red]error:[/] {plain(error)}", soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
