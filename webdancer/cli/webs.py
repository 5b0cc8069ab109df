"""Subcommands that crawl, import and search webs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from webdancer.cli.common import ConfigOption, JsonOption, app, print_json, run_async, says_how_to_go_on, split_pair
from webdancer.config import Config
from webdancer.errors import WebdancerError
from webdancer.pipeline.progress import progress_bar
from webdancer.settings_file import load_config, parse_config


@app.command()
def crawl(
    urls: Annotated[list[str], typer.Argument(help="Root URLs.")],
    out: Annotated[Path, typer.Option(help="The snapshot's folder; an unfinished crawl in it is gone on with.")],
    config: ConfigOption = None,
    max_pages: Annotated[int | None, typer.Option(help="Stop after so many pages.")] = None,
    max_depth: Annotated[int | None, typer.Option(help="Follow links so many steps.")] = None,
    resolve: Annotated[list[str] | None, typer.Option(help="HOST=ADDRESS:PORT in place of DNS; repeatable.")] = None,
    path_prefix: Annotated[list[str] | None, typer.Option(help="Only paths that open with this; repeatable.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Only URLs that match this pattern; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No URLs that match this pattern; repeatable.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="'Name: value' sent with every request; repeatable.")] = None,
    delay: Annotated[float | None, typer.Option(help="Least seconds between two requests to one host.")] = None,
) -> None:
    """Crawl websites into a snapshot (WARC files and a search index)."""
    from webdancer.pipeline.stages import crawl_to_snapshot

    given: dict[str, object] = {
        "urls": urls,
        "max_pages": max_pages,
        "max_depth": max_depth,
        "resolve": dict(split_pair(item, "=", "--resolve") for item in resolve or []) or None,
        "path_prefixes": path_prefix,
        "include": include,
        "exclude": exclude,
        "headers": dict(split_pair(item, ":", "--header") for item in header or []) or None,
        "delay_s": delay,
    }
    values = (load_config(config) if config else Config()).model_dump(mode="json")
    values["crawl"] |= {key: value for key, value in given.items() if value is not None}
    counts = run_async(crawl_to_snapshot(parse_config(values, source="command line").crawl, out))
    print_json(counts.model_dump(mode="json"))


@app.command()
def index(
    files: Annotated[list[Path], typer.Argument(help="WARC files, plain or .gz.")],
    out: Annotated[Path, typer.Option(help="The snapshot's folder.")],
) -> None:
    """Make a snapshot of WARC files that others wrote."""
    from webdancer.web.importer import ImportCounts, index_warcs

    with says_how_to_go_on(), progress_bar("records") as advance:
        shown = 0

        def on_page(counts: ImportCounts) -> None:
            nonlocal shown
            advance(counts.num_records - shown)
            shown = counts.num_records

        counts = index_warcs(files, out, on_page=on_page)
    print_json(asdict(counts))
    if not counts.num_pages + counts.num_already_in:
        raise WebdancerError(f"none of the {len(files)} files held a page; got the right files?")


@app.command()
def fetch(
    url: Annotated[str, typer.Argument(help="The page's address, with http:// or https://.")],
    config: ConfigOption = None,
    resolve: Annotated[list[str] | None, typer.Option(help="HOST=ADDRESS:PORT in place of DNS; repeatable.")] = None,
    allow_private: Annotated[
        list[str] | None, typer.Option(help="Host or network that may be asked although it is private; repeatable.")
    ] = None,
    goal: Annotated[str | None, typer.Option(help="Only the passages nearest to this.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch one page of the live web and print what the agent would read of it; exit code 3 where it cannot be had.

    Addresses of this machine and of private networks are refused, unless --allow-private or `crawl.allow_private` names them.
    """
    from webdancer.pipeline.fetching import fetch_page
    from webdancer.web.protocol import ToolFailure

    values = (load_config(config) if config else Config()).model_dump(mode="json")
    values["crawl"]["resolve"] |= dict(split_pair(item, "=", "--resolve") for item in resolve or [])
    values["crawl"]["allow_private"] += allow_private or []
    try:
        page = run_async(fetch_page(url, parse_config(values, source="command line"), goal=goal), resumable=False)
    except ToolFailure as failure:
        typer.echo(f"{url}: {failure}", err=True)
        raise typer.Exit(3) from None
    if as_json:
        print_json(page.model_dump(mode="json"))
    else:
        typer.echo(f"{page.title}\n{page.url}\n\n{page.text}")


@app.command()
def search(
    snapshot: Annotated[Path, typer.Argument(help="The snapshot's folder.")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    year: Annotated[int | None, typer.Option(help="Only pages published in this year.")] = None,
    num_results: Annotated[int, typer.Option("-n", min=1, help="How many results.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Search a snapshot."""
    from webdancer.web.snapshot import Snapshot

    with Snapshot.open(snapshot) as opened:
        hits = opened.search(query, num_results=num_results, year=year)
    if as_json:
        print_json([asdict(hit) for hit in hits])
        return
    for number, hit in enumerate(hits, 1):
        date = f"  {hit.published}" if hit.published else ""
        typer.echo(f"{number:2}. {hit.title}{date}\n    {hit.url}\n    {hit.snippet}")
    if not hits:
        typer.echo("No results.")
