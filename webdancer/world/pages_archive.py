"""The archive of papers: abstract pages, author pages, listings, PDF files, one slow page."""

import html
import re
from collections.abc import Iterator

from webdancer.world.fact_graph import FactGraph
from webdancer.world.graph import Entity, Region
from webdancer.world.layout import duplicate_link, frame, infobox, list_facts, page_rng, paragraph, render_list
from webdancer.world.lexicon import FIELDS, LISTS
from webdancer.world.names import ascii_slug
from webdancer.world.pdf import write_pdf
from webdancer.world.prose import Prose
from webdancer.world.site import Doc, Place, Site, arxiv_id, author_place, pdf_place, place_of, stable

ROBOTS = (
    "# Please be gentle.\nUser-agent: *\nDisallow: /search\nDisallow: /private/\nAllow: /private/notice\n"
    "Disallow: /*?download=1$\n{delay}\n"
    "Sitemap: http://{host}/sitemap.xml\n"
)
SLOW_PATH = "/stats"
_SMALL = 25
_TAGS = re.compile(r"<[^>]+>")


class Archive:
    """Writes the pages of the archive."""

    def __init__(self, site: Site, graph: FactGraph) -> None:
        self.site, self.graph = site, graph

    def html(self, doc: Doc, *, utf8_declared: bool = True) -> str:
        """The page around a document."""
        nav = [("New papers", "/"), ("Search", "/search?query=all"), ("Statistics", SLOW_PATH)]
        footer = '<a href="/private/notice">Legal notice</a> <a href="/private/queue">Moderation</a>'
        return frame(self.site, doc, utf8_declared=utf8_declared, nav=nav, footer=footer)

    def places(self, region: Region) -> Iterator[Place]:
        """All pages of a region."""
        if region.number == 0:
            for path in ("/", "/privacy", SLOW_PATH, "/private/notice", "/private/queue", "/search?query=all"):
                yield Place("archive", path)
        yield from (place for place, _ in self._listings(region))
        for paper in region.of("paper"):
            yield place_of(paper)
            yield pdf_place(paper)
        for person in region.of("person"):
            if "authors" in person.inverse:
                yield author_place(person)

    def redirect(self, path: str, query: str) -> str | None:
        """Papers are also known by their number alone, and with a version."""
        match = re.fullmatch(r"/(?:abs|pdf)/(\d{4}\.\d{6})v1|/paper/(\d{1,9})", path)
        if match is None:
            return None
        if match[1]:
            return path[:-2]
        paper = self.graph.find("paper", int(match[2]))
        return place_of(paper).path if paper else None

    def pdf(self, path: str) -> tuple[bytes, Doc] | None:
        """A PDF file and what it states."""
        paper = self._paper(path, "/pdf/")
        return None if paper is None else self._pdf(paper)

    def page(self, path: str, query: str) -> Doc | None:
        """The document at a path, or None."""
        place = Place("archive", path + (f"?{query}" if path == "/search" and query else ""))
        fixed = {
            "/privacy": "We store nothing about readers.",
            SLOW_PATH: "Statistics are worked out anew at each visit, which takes a while.",
            "/private/notice": "The archive is run by volunteers.",
            "/private/queue": "Papers wait here for moderation.",
            "/search": "Search results are made anew for each query.",
        }
        if path in fixed:
            return Doc(
                place,
                path.strip("/").capitalize(),
                [f"<h1>{path.strip('/').capitalize()}</h1>", paragraph([fixed[path]])],
            )
        if path == "/":
            return self._front(place)
        if path.startswith("/list/"):
            return self._listing(place)
        paper = self._paper(path, "/abs/")
        if paper is not None:
            return self._abstract(paper)
        author = re.fullmatch(r"/a/[a-z0-9-]+_(\d{1,9})", path)
        person = self.graph.find("person", int(author[1])) if author else None
        if person is not None and "authors" in person.inverse and author_place(person) == place:
            return self._author(person)
        return None

    def _paper(self, path: str, prefix: str) -> Entity | None:
        match = re.fullmatch(re.escape(prefix) + r"\d{4}\.(\d{6,9})", path)
        paper = self.graph.find("paper", int(match[1])) if match else None
        return paper if paper is not None and path == prefix + arxiv_id(paper) else None

    def _abstract(self, paper: Entity) -> Doc:
        doc = Doc(place_of(paper), paper.title)
        rng = page_rng(self.site, paper.key)
        prose = Prose(self.site, doc, paper, rng)
        groups = [paper.facts["authors"], paper.facts["field"]]
        if rng.random() < 0.7:
            groups.append(paper.facts["submitted"])
            told = []
        else:
            told = [paper.facts["submitted"][0]]
        told += paper.facts.get("code", [])
        told += [rng.choice(paper.facts["references"])] if "references" in paper.facts and rng.random() < 0.3 else []
        doc.body.append(f"<h1>{html.escape(paper.title, quote=False)}</h1>")
        doc.body.append(infobox(self.site, doc, groups, rng))
        doc.body.append("<h2>Abstract</h2>")
        doc.body.append(paragraph(prose.filler("paper", rng.randint(4, 6)) + [prose.sentence(fact) for fact in told]))
        doc.body.append(f'<p><a href="{self.site.href(doc, pdf_place(paper))}">Full text (PDF)</a></p>')
        facts = list_facts(paper, LISTS["references"])
        if facts:
            doc.body.append(render_list(self.site, doc, LISTS["references"], facts, rng))
        links = [self._author_link(doc, fact.object) for fact in paper.facts["authors"] if fact.object]
        versions = (
            f'<a href="{doc.place.path}v1">Version 1</a> <a href="{pdf_place(paper).path}?download=1">Download</a> '
        )
        versions += f'<a href="/search?query={stable(paper.key)}">Similar papers</a> '
        versions += duplicate_link(doc, "Citation view", "view=cite", share=15)
        doc.after.append(f'<aside class="related-links">Papers by {", ".join(links)}. {versions}</aside>\n')
        return doc

    def _author_link(self, doc: Doc, person: Entity) -> str:
        return f'<a href="{self.site.href(doc, author_place(person))}">{html.escape(person.title, quote=False)}</a>'

    def _pdf(self, paper: Entity) -> tuple[bytes, Doc]:
        doc = Doc(pdf_place(paper), paper.title)
        rng = page_rng(self.site, paper.key + "/pdf")
        prose = Prose(self.site, doc, paper, rng)
        for fact in paper.facts["authors"]:
            doc.state(fact)
        authors = ", ".join(fact.object.title for fact in paper.facts["authors"] if fact.object)
        body = ["# Introduction", " ".join(prose.filler("paper", 4))]
        body += ["# Data", prose.sentence(paper.facts["num_samples"][0])]
        if "funded_by" in paper.facts:
            body += ["# Acknowledgements", prose.sentence(paper.facts["funded_by"][0])]
        plain = [html.unescape(_TAGS.sub("", text)) for text in body]
        return write_pdf(paper.title, authors, plain), doc

    def _author(self, person: Entity) -> Doc:
        doc = Doc(author_place(person), person.title)
        rng = page_rng(self.site, person.key + "/papers")
        doc.body.append(f"<h1>{html.escape(person.title, quote=False)}</h1>")
        doc.body.append(f"<p>Author page of {self.site.link(doc, person, person.title)}.</p>")
        doc.body.append(render_list(self.site, doc, LISTS["papers"], list_facts(person, LISTS["papers"]), rng))
        return doc

    def _listings(self, region: Region) -> Iterator[tuple[Place, list[Entity]]]:
        papers = region.of("paper")
        if len(papers) <= _SMALL:
            yield Place("archive", f"/list/all/{region.number + 1}"), papers
            return
        for field in FIELDS:
            members = [paper for paper in papers if paper.facts["field"][0].value == field]
            if members:
                yield Place("archive", f"/list/{ascii_slug(field)}/{region.number + 1}"), members

    def _front(self, place: Place) -> Doc:
        doc = Doc(place, "Archive of papers", ["<h1>Archive of papers</h1>"])
        regions = self.graph.plan.num_regions
        if regions == 1:
            paths = [listing.path for listing, _ in self._listings(self.graph.region(0))]
        else:
            paths = [f"/list/part/{number + 1}" for number in range(regions)]
        doc.body.append(_path_list(paths))
        return doc

    def _listing(self, place: Place) -> Doc | None:
        _, _, name, number = [*place.path.split("/"), "", ""][:4]
        if not number.isdigit() or not 0 < int(number) <= self.graph.plan.num_regions:
            return None
        listings = list(self._listings(self.graph.region(int(number) - 1)))
        title = f"Papers on {name.replace('-', ' ')}"
        if name == "part" and place.path == f"/list/part/{number}":
            return Doc(
                place,
                f"Part {number}",
                [f"<h1>Part {number}</h1>", _path_list([listing.path for listing, _ in listings])],
            )
        for listing, papers in listings:
            if listing == place:
                doc = Doc(place, title, [f"<h1>{title}</h1>"])
                items = "".join(f"<li>{self.site.link(doc, paper, paper.title)}</li>\n" for paper in papers)
                doc.body.append(f"<ul>\n{items}</ul>")
                return doc
        return None


def _path_list(paths: list[str]) -> str:
    items = "".join(f'<li><a href="{path}">{path.strip("/")}</a></li>\n' for path in paths)
    return f"<ul>\n{items}</ul>"
