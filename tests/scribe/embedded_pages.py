"""The pages and facts of an embedded web, in memory: what a crawl of it would bring, without the crawl."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from proofs import Facts, load_facts

from webdancer.records import Page
from webdancer.web.extract import extract
from webdancer.world.facts import World
from webdancer.world.server import write_facts


class Embedded(NamedTuple):
    """Pages by URL, and the facts that only tests may know."""

    pages: dict[str, Page]
    facts: Facts

    def urls(self) -> list[str]:
        return sorted(self.pages)

    def page(self, url: str) -> Page | None:
        return self.pages.get(url)


def build(seed: int, num_pages: int, folder: Path) -> Embedded:
    """All allowed and reachable pages of `World(seed, num_pages)`."""
    world = World(seed, num_pages)
    write_facts(world, folder / "facts.jsonl")
    facts = load_facts(folder / "facts.jsonl")
    pages = {}
    for url, row in facts.pages.items():
        if not row["allowed"] or not row["reachable"] or "same_as" in row:
            continue
        parts = urlsplit(url)
        response = world.respond(parts.netloc, parts.path + (f"?{parts.query}" if parts.query else ""), {})
        read = extract(response.body, url=url, content_type=response.headers.get("Content-Type"))
        pages[url] = Page(
            url=url,
            title=read.title,
            text=read.text,
            links=read.links,
            published=read.published,
            fetched_at=datetime(2025, 1, 1, tzinfo=UTC),
            content_hash=hashlib.sha256(response.body).hexdigest(),
        )
    return Embedded(pages, facts)
