"""Subcommands for the embedded web itself."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from webdancer.cli.common import PortOption, app, run_async

world_app = typer.Typer(help="The embedded web: a generated web whose facts are known.", no_args_is_help=True)
app.add_typer(world_app, name="world")

SeedOption = Annotated[int, typer.Option(help="Seed of the web.")]
PagesOption = Annotated[int, typer.Option(help="About so many pages.")]


@world_app.command(name="serve")
def world_serve(
    seed: SeedOption = 7,
    pages: PagesOption = 2000,
    right_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the talk host's posts that are right.")
    ] = 0.5,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: PortOption = 8080,
    access_log: Annotated[Path | None, typer.Option(help="Append each request as a JSON line.")] = None,
    facts: Annotated[Path | None, typer.Option(help="First write the facts to this file.")] = None,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Serve all hosts of the embedded web on one loopback port, told apart by the Host header."""
    from webdancer.world.facts import World
    from webdancer.world.server import serve as serve_world
    from webdancer.world.server import stop_at_end_of_stdin, write_facts

    world = World(seed, pages, right_share=right_share)
    if facts:
        write_facts(world, facts)

    def on_ready(bound: int) -> None:
        ready = {"address": address, "port": bound, "hosts": list(world.hosts()), "roots": list(world.roots())}
        typer.echo(json.dumps(ready))
        sys.stdout.flush()

    if until_stdin_closes:
        stop_at_end_of_stdin()
    run_async(serve_world(world, address=address, port=port, access_log=access_log, on_ready=on_ready), resumable=False)


@world_app.command(name="facts")
def world_facts(
    out: Annotated[Path, typer.Option(help="The JSONL file.")], seed: SeedOption = 7, pages: PagesOption = 2000
) -> None:
    """Write the facts of the embedded web: entities, facts with the pages that state them, and all pages."""
    from webdancer.world.facts import World
    from webdancer.world.server import write_facts

    write_facts(World(seed, pages), out)
