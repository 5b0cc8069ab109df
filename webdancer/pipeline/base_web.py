"""The webs that the tiny base model reads: other webs of the embedded web's generator, read without a server."""

from collections.abc import Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from webdancer.scribe.reader import Fact, Listing, read_page
from webdancer.scribe.relations import RELATIONS
from webdancer.web.extract import extract
from webdancer.world.facts import World

FIRST_SEED = 1_000_000
MAX_LIST = 24


class Turn(NamedTuple):
    """One message of a document. Pages are documents of one `text` turn."""

    role: str
    """`user`, `assistant`, or `text` for plain text without any role."""
    text: str


Document = list[Turn]


@dataclass
class PageOf:
    """One page of another web."""

    title: str
    url: str
    text: str


@dataclass
class Web:
    """The pages of one web and what the reader found on them."""

    pages: list[PageOf] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    by_subject: dict[str, list[Fact]] = field(default_factory=dict)
    by_value: dict[str, list[Fact]] = field(default_factory=dict)
    lists: list[Listing] = field(default_factory=list)

    def without(self, names: Set[str]) -> "Web":
        """The web without all that bears one of these names: pages, facts and lists."""
        own = {name.text for fact in self.facts for name in (fact.subject, fact.value)}
        own |= {page.title.partition(" (")[0].partition(":")[0] for page in self.pages}
        own |= {member.name.text for listing in self.lists for member in listing.members}
        shared = own & names
        clean = Web()
        clean.pages = [page for page in self.pages if not any(name in f"{page.title}\n{page.text}" for name in shared)]
        for fact in self.facts:
            if not any(name in f"{fact.subject.text}\n{fact.value.text}\n{fact.line}" for name in shared):
                clean.add_fact(fact)
        clean.lists = [x for x in self.lists if not shared & {x.holder.text, *(m.name.text for m in x.members)}]
        return clean

    def add_fact(self, fact: Fact) -> None:
        """Note a fact, also under its subject and its value."""
        self.facts.append(fact)
        self.by_subject.setdefault(fact.subject.text, []).append(fact)
        self.by_value.setdefault(fact.value.text, []).append(fact)

    def listing(self, member: str) -> list[Listing]:
        """The lists that hold a member."""
        return self._lists_of.get(member, [])

    @cached_property
    def _lists_of(self) -> dict[str, list[Listing]]:
        found: dict[str, list[Listing]] = {}
        for listing in self.lists:
            for member in listing.members:
                found.setdefault(member.name.text, []).append(listing)
        return found


def read_web(seed: int, num_pages: int) -> Web:
    """Generate a web and read its pages, without a server.

    Raises:
        ValueError: the seed could be one of a run's own webs.
    """
    if seed < FIRST_SEED:
        raise ValueError(f"seed of a web to pre-train on: got {seed}, expected {FIRST_SEED} or more")
    world, web = World(seed, num_pages), Web()
    docs = (doc for number in range(world.graph.plan.num_regions) for doc in world.docs(world.graph.region(number)))
    for doc in docs:
        url = world.site.url(doc.place)
        response = world.respond(world.site.hosts[doc.place.host], doc.place.path, {})
        if response.status != 200 or not response.headers.get("Content-Type", "").startswith("text/html"):
            continue
        page = extract(response.body, url=url, content_type=response.headers.get("Content-Type"))
        if page.title and page.text:
            web.pages.append(PageOf(page.title, url, page.text))
            reading = read_page(page.title, page.text)
            web.lists += [item for item in reading.lists if item.complete and 1 < len(item.members) <= MAX_LIST]
            for fact in reading.facts:
                if fact.value.text != fact.subject.text and fact.relation in RELATIONS:
                    web.add_fact(fact)
    return web
