"""The five hosts, the addresses of entities on them, and the document that a page is while it is being written."""

import html
import zlib
from dataclasses import dataclass, field
from urllib.parse import quote

from webdancer.world.graph import Article, Entity, Fact
from webdancer.world.names import ascii_slug
from webdancer.world.plan import TYPES

HOST_KINDS = ("wiki", "archive", "code", "news", "talk")


def stable(*parts: object) -> int:
    """A number that follows from the parts alone, in this and any other process."""
    return zlib.crc32("\x1f".join(map(str, parts)).encode())


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page lives: kind of host and path with query."""

    host: str
    path: str


@dataclass(slots=True)
class Doc:
    """A page in the making."""

    place: Place
    title: str
    body: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    stated: list[Fact] = field(default_factory=list)
    """The facts that the page states, in its infobox, prose, lists or tables."""
    duplicates: list[Place] = field(default_factory=list)
    """Other addresses of other pages' contents that this page links to."""
    after: list[str] = field(default_factory=list)
    """Boxes outside the main text."""

    def state(self, fact: Fact) -> None:
        """Record that the page states a fact."""
        self.stated.append(fact)


class Site:
    """Hosts and addresses of one seed, and the share of the talk host's posts that are right."""

    def __init__(self, seed: int, *, right_share: float = 0.5) -> None:
        self.seed, self.right_share = seed, right_share
        self.hosts = {kind: f"{kind}.example" for kind in HOST_KINDS}

    def url(self, place: Place) -> str:
        """The absolute URL."""
        return f"http://{self.hosts[place.host]}{place.path}"

    def href(self, doc: Doc, place: Place) -> str:
        """A link from a page: relative within a host, absolute to another."""
        if doc.place.host != place.host:
            return html.escape(self.url(place))
        base = doc.place.path.rpartition("/")[0] + "/"
        if (
            base != "/"
            and place.path.startswith(base)
            and ":" not in place.path
            and stable(doc.place.path, place.path) % 3 == 0
        ):
            return html.escape(place.path[len(base) :] or "./")
        return html.escape(place.path)

    def link(self, doc: Doc, entity: Entity, text: str) -> str:
        """An HTML link to the entity's page."""
        return f'<a href="{self.href(doc, place_of(entity))}">{html.escape(text, quote=False)}</a>'


def wiki_path(title: str) -> str:
    """`/wiki/Title_with_underscores`."""
    return "/wiki/" + quote(title.replace(" ", "_"), safe="/:(),'!")


def login(person: Entity) -> str:
    """The person's account on the code host."""
    return f"{ascii_slug(person.name.split()[-1])}{person.number}"


def arxiv_id(paper: Entity) -> str:
    """`YYMM.NNNNNN`: month of submission and number."""
    return f"{paper.since:%y%m}.{paper.number:06d}"


def place_of(entity: Entity) -> Place:
    """The page of an entity."""
    if entity.type == "paper":
        return Place("archive", f"/abs/{arxiv_id(entity)}")
    if entity.type == "repository":
        maintainer = entity.object("maintainer")
        assert maintainer is not None
        return Place("code", f"/{login(maintainer)}/{entity.name}")
    return Place("wiki", wiki_path(entity.title))


def pdf_place(paper: Entity) -> Place:
    """The paper's PDF."""
    return Place("archive", f"/pdf/{arxiv_id(paper)}")


def author_place(person: Entity) -> Place:
    """The person's page on the archive."""
    return Place("archive", f"/a/{ascii_slug(person.name)}_{person.number}")


def owner_place(person: Entity) -> Place:
    """The person's page on the code host."""
    return Place("code", f"/{login(person)}")


def article_place(article: Article) -> Place:
    """`/YYYY/MM/DD/slug-NUMBER`."""
    slug = ascii_slug(article.facts[0].subject.name)
    return Place("news", f"/{article.day:%Y/%m/%d}/{slug}-{article.number}")


def thread_place(thing: Entity) -> Place:
    """The thread about a thing: `/t/NUMBER`. The number tells its type and its own number."""
    return Place("talk", f"/t/{thing.number * len(TYPES) + TYPES.index(thing.type)}")


def thing_of_thread(number: int) -> tuple[str, int]:
    """Type and number of the thing that the thread of this number is about."""
    return TYPES[number % len(TYPES)], number // len(TYPES)
