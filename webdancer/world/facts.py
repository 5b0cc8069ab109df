"""The embedded web as one object: its seeded fact graph behind five hosts, answering requests without a server.

Stands in for the live web of the paper. `World.respond` is pure: what an address answers follows from seed, size and address
alone, in any order and any process.
"""

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from protego import Protego

from webdancer.world import pages_archive, pages_code, pages_news, pages_talk, pages_wiki
from webdancer.world.fact_graph import FactGraph
from webdancer.world.graph import Entity, Fact, Region
from webdancer.world.pages_archive import Archive
from webdancer.world.pages_code import CodeHost
from webdancer.world.pages_news import News
from webdancer.world.pages_talk import Talk
from webdancer.world.pages_wiki import ORPHAN_PATH, Wiki
from webdancer.world.site import HOST_KINDS, Doc, Place, Site, place_of, stable

__all__ = ["Entity", "Fact", "PageRow", "Response", "World"]

_ROBOTS = {
    "wiki": pages_wiki.ROBOTS,
    "archive": pages_archive.ROBOTS,
    "code": pages_code.ROBOTS,
    "news": pages_news.ROBOTS,
    "talk": pages_talk.ROBOTS,
}
_SLOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Response:
    """What an address answers. `body` is encoded as `headers` say; `delay_s` is how long the server lets the client wait."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    delay_s: float = 0.0


class PageRow(NamedTuple):
    """One real page. The calendar has no rows: it has no end."""

    url: str
    allowed: bool
    """By the robots.txt of its host."""
    reachable: bool
    """Linked to, directly or not, from a root over allowed pages."""
    same_as: str | None
    """For a duplicate: the URL of the page whose very bytes it serves."""


class World:
    """A generated web of five hosts.

    Args:
        seed: names, facts and texts; two seeds share next to no name.
        num_pages: about so many pages, at least 20.
        right_share: share of the talk host's claims that are right.
        crawl_delay_s: a Crawl-delay that archive, code host, news and talk host ask for in robots.txt; 0 asks for none.
    """

    def __init__(self, seed: int, num_pages: int, *, right_share: float = 0.5, crawl_delay_s: float = 0.0) -> None:
        self.seed, self.num_pages = seed, num_pages
        self.graph = FactGraph(seed, num_pages)
        self.site = Site(seed, right_share=right_share)
        self._delay = f"Crawl-delay: {crawl_delay_s:g}\n" if crawl_delay_s else ""
        self._archive = Archive(self.site, self.graph)
        self._makers: dict[str, Wiki | Archive | CodeHost | News | Talk] = {
            "wiki": Wiki(self.site, self.graph),
            "archive": self._archive,
            "code": CodeHost(self.site, self.graph),
            "news": News(self.site, self.graph),
            "talk": Talk(self.site, self.graph),
        }
        self._kinds = {host: kind for kind, host in self.site.hosts.items()}
        self._answer = lru_cache(maxsize=4096)(self._make_answer)

    def hosts(self) -> tuple[str, ...]:
        """The host names."""
        return tuple(self.site.hosts.values())

    def roots(self) -> tuple[str, ...]:
        """The URLs from which all pages can be reached."""
        return tuple(f"http://{host}/" for host in self.hosts())

    def url_of(self, entity: Entity) -> str:
        """The main page of an entity."""
        return self.site.url(place_of(entity))

    # -- answering

    def respond(self, host: str, path: str, headers: Mapping[str, str]) -> Response:
        """What `http://host/path` answers.

        Args:
            path: path and query as they stand in the request line.
            headers: of the request; only `Accept-Encoding` matters.
        """
        kind = self._kinds.get(host.lower().partition(":")[0])
        if kind is None:
            return Response(421, {"Content-Type": "text/plain"}, b"There is no such host here.\n")
        accepted = next((value for name, value in headers.items() if name.lower() == "accept-encoding"), "")
        return self._answer(kind, path.partition("#")[0], "gzip" in accepted)

    def _make_answer(self, kind: str, target: str, gzip_accepted: bool) -> Response:
        response = self._plain_answer(kind, target)
        if gzip_accepted and response.status == 200 and stable("gzip", kind, target) % 3 == 0:
            body = gzip.compress(response.body, compresslevel=5, mtime=0)
            return Response(200, {**response.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}, body)
        return response

    def _plain_answer(self, kind: str, target: str) -> Response:
        path, _, query = target.partition("?")
        if path == "/robots.txt":
            return Response(200, {"Content-Type": "text/plain"}, self.robots(kind).encode())
        if path.startswith("/sitemap"):
            return self._sitemap(kind, path)
        if kind == "archive" and path.startswith("/pdf/"):
            made = self._archive.pdf(path)
            if made is not None:
                return Response(200, {"Content-Type": "application/pdf"}, made[0])
        maker = self._makers[kind]
        if kind == "wiki" and path != "/":
            doc = maker.page(path, query)
            moved = maker.redirect(path, query) if doc is None else None
        else:
            moved = maker.redirect(path, query)
            doc = maker.page(path, query) if moved is None else None
        if moved is not None:
            status = 302 if path == "/" or path.startswith("/ring/") else 301
            return Response(status, {"Location": moved, "Content-Type": "text/plain"}, b"This page has moved.\n")
        if doc is None:
            return self._missing(kind, path)
        delay = _SLOW_S if kind == "archive" and path == pages_archive.SLOW_PATH else 0.0
        return self._html(kind, doc, delay)

    def _html(self, kind: str, doc: Doc, delay_s: float) -> Response:
        maker = self._makers[kind]
        if kind == "wiki" and stable("latin-1", doc.place.path) % 4 == 0:
            text = maker.html(doc, utf8_declared=False)
            if not text.isascii() and _fits_latin_1(text):
                # Only the header declares the encoding, as on many old sites.
                return Response(200, {"Content-Type": "text/html; charset=ISO-8859-1"}, text.encode("latin-1"), delay_s)
        return Response(200, {"Content-Type": "text/html; charset=utf-8"}, maker.html(doc).encode(), delay_s)

    def _missing(self, kind: str, path: str) -> Response:
        doc = Doc(Place(kind, path), "Not found", ["<h1>Not found</h1>", "<p>There is nothing at this address.</p>"])
        return Response(404, {"Content-Type": "text/html; charset=utf-8"}, self._makers[kind].html(doc).encode())

    def robots(self, kind: str) -> str:
        """The robots.txt of a host."""
        delay = "" if kind == "wiki" else self._delay
        return _ROBOTS[kind].format(host=self.site.hosts[kind], delay=delay)

    def _sitemap(self, kind: str, path: str) -> Response:
        head = '<?xml version="1.0" encoding="UTF-8"?>\n'
        space = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
        regions = self.graph.plan.num_regions
        host = self.site.hosts[kind]
        name = path.removeprefix("/sitemap").removesuffix(".xml").removeprefix("-")
        if name == "" and regions > 1:
            rows = "".join(f"<sitemap><loc>http://{host}/sitemap-{n + 1}.xml</loc></sitemap>\n" for n in range(regions))
            text = f"{head}<sitemapindex {space}>\n{rows}</sitemapindex>\n"
        elif name == "" or (name.isdigit() and 0 < int(name) <= regions):
            rules = Protego.parse(self.robots(kind))
            places = self._makers[kind].places(self.graph.region(int(name or 1) - 1))
            urls = [self.site.url(place) for place in places if place.path != ORPHAN_PATH]
            rows = "".join(
                f"<url><loc>{url}</loc></url>\n" for url in urls if rules.can_fetch(url, "*") and "&" not in url
            )
            text = f"{head}<urlset {space}>\n{rows}</urlset>\n"
        else:
            return self._missing(kind, path)
        return Response(200, {"Content-Type": "application/xml"}, text.encode())

    # -- what the web holds, for tests and evaluation

    def docs(self, region: Region) -> Iterator[Doc]:
        """All pages of a region as documents that know which facts they state."""
        for kind in HOST_KINDS:
            maker = self._makers[kind]
            for place in maker.places(region):
                made = self._archive.pdf(place.path) if kind == "archive" and place.path.startswith("/pdf/") else None
                if made is not None:
                    yield made[1]
                elif kind == "wiki" and place.path == "/":
                    continue
                else:
                    path, _, query = place.path.partition("?")
                    doc = maker.page(path, query)
                    assert doc is not None, place
                    maker.html(doc)  # the frame links to duplicates, too
                    yield doc

    def page_rows(self, docs: list[Doc]) -> Iterator[PageRow]:
        """The rows of these pages and of the duplicates that they link to."""
        rules = {kind: Protego.parse(self.robots(kind)) for kind in HOST_KINDS}
        for doc in docs:
            url = self.site.url(doc.place)
            yield PageRow(url, rules[doc.place.host].can_fetch(url, "webdancer"), doc.place.path != ORPHAN_PATH, None)
        seen = set()
        for doc in docs:
            for place in doc.duplicates:
                url = self.site.url(place)
                if place not in seen:
                    seen.add(place)
                    same_as = self.site.url(Place(place.host, _original(place)))
                    yield PageRow(url, rules[place.host].can_fetch(url, "webdancer"), True, same_as)


def _original(place: Place) -> str:
    """The path whose page a duplicate's address serves."""
    path, _, query = place.path.partition("?")
    return "/wiki/" + query.removeprefix("title=") if path == "/w/index.php" else path


def _fits_latin_1(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
