"""The news site: dated articles, yearly archives, a calendar without end, a page that needs JavaScript."""

import html
import re
from collections.abc import Iterator

from webdancer.world.fact_graph import FactGraph
from webdancer.world.graph import Article, Region, date_text
from webdancer.world.layout import duplicate_link, frame, page_rng, paragraph
from webdancer.world.lexicon import NEWS
from webdancer.world.prose import Prose
from webdancer.world.site import Doc, Place, Site, article_place, stable

ROBOTS = "User-agent: *\nDisallow: /internal/\nDisallow: /drafts\n{delay}\nSitemap: http://{host}/sitemap.xml\n"
SCRIPTED_PATH = "/live"
_SMALL, _NUM_LATEST = 40, 15

_HEADLINES: dict[str, tuple[str, ...]] = {
    "population": ("New figures for {}", "{} counts its people"),
    "mayor": ("Change at the town hall of {}", "{} has voted"),
    "ceo": ("Change at the top of {}", "New leadership for {}"),
    "employees": ("Yearly report of {}", "{} and its staff"),
    "stars": ("The rise of {}", "Developers take notice of {}"),
    "laureates": ("{}: the jury has decided", "{} awarded"),
    "acquired_by": ("New owner for {}", "{} changes hands"),
}


class News:
    """Writes the pages of the news site."""

    def __init__(self, site: Site, graph: FactGraph) -> None:
        self.site, self.graph = site, graph

    def html(self, doc: Doc, *, utf8_declared: bool = True) -> str:
        """The page around a document."""
        nav = [
            ("Home", "/"),
            ("Calendar", "/calendar/2024/12"),
            ("Live", SCRIPTED_PATH),
            ("Newsroom", "/internal/desk"),
        ]
        footer = 'All rights reserved. <a href="/drafts?all=1">Drafts</a> <a href="/old/imprint">Imprint</a>'
        return frame(self.site, doc, utf8_declared=utf8_declared, nav=nav, footer=footer)

    def places(self, region: Region) -> Iterator[Place]:
        """All pages of a region; the calendar is no page but a trap."""
        if region.number == 0:
            paths = ("/", "/privacy", "/imprint", SCRIPTED_PATH, "/internal/desk", "/drafts?all=1")
            yield from (Place("news", path) for path in paths)
        yield from (place for place, _ in self._archives(region))
        yield from (article_place(article) for article in region.articles)

    def redirect(self, path: str, query: str) -> str | None:
        """The imprint has moved; articles answer to their number alone; two addresses send readers to each other."""
        if path == "/old/imprint":
            return "/imprint"
        if path in {"/ring/a", "/ring/b"}:
            return "/ring/b" if path == "/ring/a" else "/ring/a"
        match = re.fullmatch(r"/n/(\d{1,9})", path)
        article = self._find(int(match[1])) if match else None
        return article_place(article).path if article else None

    def page(self, path: str, query: str) -> Doc | None:
        """The document at a path, or None."""
        place = Place("news", path + (f"?{query}" if path == "/drafts" and query else ""))
        fixed = {
            "/privacy": "We respect your privacy.",
            "/imprint": "Published by the editors.",
            "/internal/desk": "For editors only.",
            "/drafts": "Not yet ready.",
        }
        if path in fixed:
            name = path.rpartition("/")[2].capitalize()
            return Doc(place, name, [f"<h1>{name}</h1>", paragraph([fixed[path]])])
        if path == "/":
            return self._front(place)
        if path == SCRIPTED_PATH:
            return self._scripted(place)
        if path.startswith("/archive/"):
            return self._archive(place)
        calendar = re.fullmatch(r"/calendar/(\d{4,6})/(\d\d)", path)
        if calendar and 1 <= int(calendar[2]) <= 12:
            return self._calendar(place, int(calendar[1]), int(calendar[2]))
        match = re.fullmatch(r"/\d{4}/\d\d/\d\d/[a-z0-9-]+-(\d{1,9})", path)
        article = self._find(int(match[1])) if match else None
        return self._article(article) if article and article_place(article) == place else None

    def _find(self, number: int) -> Article | None:
        region = self.graph.plan.region_of("news", number)
        if region is None:
            return None
        place = number - self.graph.plan.first("news", region)
        articles = self.graph.region(region).articles
        return articles[place] if place < len(articles) else None

    def _headline(self, article: Article) -> str:
        fact = article.facts[0]
        shapes = _HEADLINES[fact.relation]
        return shapes[stable(self.site.seed, article.number) % len(shapes)].format(fact.subject.name)

    def _article(self, article: Article) -> Doc:
        doc = Doc(article_place(article), self._headline(article))
        rng = page_rng(self.site, f"news/{article.number}")
        fact = article.facts[0]
        prose = Prose(self.site, doc, fact.subject, rng, always_named=True)
        iso = article.day.isoformat()
        if stable("date", article.number) % 3:
            doc.head.append(
                f'<meta property="article:published_time" content="{iso}T{rng.randint(6, 21):02d}:00:00+00:00">'
            )
        sentences = [prose.sentence(fact, NEWS[fact.relation])]
        sentences += [prose.sentence(other) for other in article.background]
        doc.body += [
            f"<article><h1>{html.escape(doc.title, quote=False)}</h1>",
            f'<p class="dateline"><time datetime="{iso}">{date_text(article.day)}</time></p>',
            paragraph(sentences),
            paragraph(prose.filler("news", rng.randint(3, 5))) + "</article>",
        ]
        links = f'<a href="/n/{article.number}">Short link</a> ' if stable("short", article.number) % 6 == 0 else ""
        links += '<a href="/ring/a">Partner offers</a> ' if stable("ring", article.number) % 40 == 0 else ""
        links += f'<a href="/tag/{stable("tag", article.number) % 50}">Tag</a> ' if article.number % 12 == 0 else ""
        links += duplicate_link(doc, "Print", "print=1", share=12)
        doc.after.append(f'<aside class="related-links">Share this article. {links}</aside>\n')
        return doc

    def _archives(self, region: Region) -> Iterator[tuple[Place, list[Article]]]:
        articles = region.articles
        if len(articles) <= _SMALL:
            yield Place("news", f"/archive/all/{region.number + 1}"), articles
            return
        for start in range((articles[0].day.year // 4) * 4, articles[-1].day.year + 1, 4):
            members = [article for article in articles if start <= article.day.year < start + 4]
            if members:
                yield Place("news", f"/archive/{start}-{start + 3}/{region.number + 1}"), members

    def _items(self, doc: Doc, articles: list[Article], *, tracked: bool) -> str:
        rows = []
        for article in articles:
            path = article_place(article).path
            if tracked:
                path = f"{path}?utm_source=front&sid={stable(self.site.seed, path):08x}"
                doc.duplicates.append(Place("news", path))
            title = html.escape(self._headline(article), quote=False)
            rows.append(f'<li>{date_text(article.day)}: <a href="{html.escape(path)}">{title}</a></li>\n')
        return f"<ul>\n{''.join(rows)}</ul>"

    def _front(self, place: Place) -> Doc:
        doc = Doc(place, "News of the day", ["<h1>News of the day</h1>"])
        latest = self.graph.region(0).articles[-_NUM_LATEST:]
        doc.body.append(self._items(doc, latest[::-1], tracked=True))
        regions = self.graph.plan.num_regions
        if regions == 1:
            paths = [archive.path for archive, _ in self._archives(self.graph.region(0))]
        else:
            paths = [f"/archive/part/{number + 1}" for number in range(regions)]
        doc.body.append(_path_list(paths))
        return doc

    def _archive(self, place: Place) -> Doc | None:
        _, _, name, number = [*place.path.split("/"), "", ""][:4]
        if not number.isdigit() or not 0 < int(number) <= self.graph.plan.num_regions:
            return None
        archives = list(self._archives(self.graph.region(int(number) - 1)))
        if name == "part" and place.path == f"/archive/part/{number}":
            return Doc(
                place,
                f"Part {number}",
                [f"<h1>Part {number}</h1>", _path_list([archive.path for archive, _ in archives])],
            )
        for archive, articles in archives:
            if archive == place:
                doc = Doc(place, f"Archive {name}", [f"<h1>Archive {name}</h1>"])
                doc.body.append(self._items(doc, articles, tracked=False))
                return doc
        return None

    def _scripted(self, place: Place) -> Doc:
        script = "document.getElementById('app').textContent = 'Nothing has happened in the last hour.';"
        return Doc(
            place,
            "Live",
            ['<div id="app"></div>', f"<script>{script}</script>", "<noscript>Please enable JavaScript.</noscript>"],
        )

    def _calendar(self, place: Place, year: int, month: int) -> Doc:
        doc = Doc(place, f"Calendar {year}/{month:02d}", [f"<h1>Events in {month:02d}/{year}</h1>"])
        doc.body.append(paragraph([f"No events are planned for this month, number {month} of {year}."]))
        following = f"/calendar/{year + month // 12}/{month % 12 + 1:02d}"
        before = f"/calendar/{year - (month == 1)}/{(month - 2) % 12 + 1:02d}"
        doc.body.append(f'<p><a href="{before}">Earlier</a> <a href="{following}">Later</a></p>')
        return doc


def _path_list(paths: list[str]) -> str:
    items = "".join(f'<li><a href="{path}">{path.strip("/")}</a></li>\n' for path in paths)
    return f"<ul>\n{items}</ul>"
