"""The encyclopaedia: articles with infobox, prose, complete lists; disambiguation, portals, indexes, special pages."""

import html
import random
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote

from webdancer.world.fact_graph import FactGraph
from webdancer.world.graph import Entity, Fact, Region
from webdancer.world.layout import (
    duplicate_link,
    frame,
    infobox,
    list_facts,
    page_rng,
    paragraph,
    related_box,
    render_list,
)
from webdancer.world.lexicon import INCOMPLETE, LISTS, RELATIONS, Cardinality, Combined
from webdancer.world.prose import Prose
from webdancer.world.site import Doc, Place, Site, author_place, place_of, stable, wiki_path

ROBOTS = (
    "User-agent: *\nDisallow: /wiki/Special:\nDisallow: /w/\nAllow: /w/index.php?title=\n\n"
    "User-agent: GreedyBot\nDisallow: /\n\nSitemap: http://{host}/sitemap.xml\n"
)
ELSEWHERE = frozenset({"paper", "repository"})
"""Types whose pages stand on other hosts."""
ORPHAN_PATH = "/wiki/Draft:Orphan"
"""Linked to from forbidden pages only."""
_CHUNK = 80
_IN_BOTH, _IN_PROSE = 0.45, 0.72
"""Of the facts, so many stand in infobox and prose, up to so many in the prose; the others in the infobox alone."""
_PLURALS = {
    "city": "cities",
    "country": "countries",
    "university": "universities",
    "company": "companies",
    "person": "people",
}
_DUPLICATE_EVERY = 18
_SEE_ALSO_EVERY = 6


def _plural(kind: str) -> str:
    return _PLURALS.get(kind, kind + "s")


class Wiki:
    """Writes the pages of the encyclopaedia."""

    def __init__(self, site: Site, graph: FactGraph) -> None:
        self.site, self.graph = site, graph

    def html(self, doc: Doc, *, utf8_declared: bool = True) -> str:
        """The page around a document."""
        nav = [("Main page", "/wiki/Main_Page"), ("Recent changes", "/wiki/Special:Recent_changes")]
        own = html.escape(doc.place.path)
        footer = f'Text under a free licence. <a href="/wiki/Special:Log?page={quote(own, safe="")}">History</a> '
        footer += duplicate_link(doc, "Printable version", "printable=yes", share=_DUPLICATE_EVERY)
        return frame(self.site, doc, utf8_declared=utf8_declared, nav=nav, footer=footer)

    def places(self, region: Region) -> Iterator[Place]:
        """All pages of a region, forbidden and unreachable ones included."""
        if region.number == 0:
            yield Place("wiki", "/wiki/Main_Page")
            yield Place("wiki", "/privacy")
            yield Place("wiki", "/wiki/Special:Recent_changes")
            yield Place("wiki", ORPHAN_PATH)
        if self.graph.plan.num_regions > 1:
            yield Place("wiki", f"/wiki/Portal:{region.number + 1}")
        yield from (place for place, _, _ in self._indexes(region))
        for entity in region.entities():
            if entity.type not in ELSEWHERE:
                yield place_of(entity)
        for name in region.ambiguous:
            yield Place("wiki", wiki_path(name))

    def redirect(self, path: str, query: str) -> str | None:
        """Where an address moves to, if it does."""
        if path == "/":
            return "/wiki/Main_Page"
        title = _title(path)
        for number in self.graph.regions_named(title):
            for entity in self.graph.region(number).entities():
                if title in entity.aliases and entity.type in {"city", "company"}:
                    return wiki_path(entity.title)
        return None

    def page(self, path: str, query: str) -> Doc | None:
        """The document at a path, or None."""
        if path == "/w/index.php" and query.startswith("title="):
            path = "/wiki/" + query.removeprefix("title=")
        place = Place("wiki", path)
        if path == "/privacy":
            return Doc(place, "Privacy", ["<h1>Privacy</h1>", paragraph(["This site keeps no personal data."])])
        if not path.startswith("/wiki/"):
            return None
        title = _title(path)
        if title == "Main Page":
            return self._main(place)
        if ":" in title:
            return self._named_page(place, title)
        for number in self.graph.regions_named(title):
            region = self.graph.region(number)
            entity = region.by_title.get(title)
            if entity is not None and entity.type not in ELSEWHERE:
                return self._article(entity, region)
            if title in region.ambiguous:
                return self._disambiguation(place, region.ambiguous[title])
        return None

    # -- articles

    def _article(self, entity: Entity, region: Region) -> Doc:
        doc = Doc(place_of(entity), entity.title)
        rng = page_rng(self.site, entity.key)
        prose = Prose(self.site, doc, entity, rng)
        boxed, told, intro = _divide(entity, prose, rng)
        box = infobox(self.site, doc, [[fact] for fact in boxed], rng)
        first = [prose.combined(shape) for shape in intro[:1]]
        told = told if first else sorted(told, key=lambda fact: fact.relation != "occupation")
        sentences = first + [prose.sentence(fact) for fact in told]
        fillers = prose.filler(entity.type, rng.randint(3, 6))
        if entity.aliases:
            fillers.insert(rng.randrange(len(fillers) + 1), prose.alias(entity.aliases[0]))
        if not sentences:
            sentences = [f"{prose.full_name(entity)} is described here."]
        cut = max(2, (len(sentences) + 1) // 2)
        doc.body += [f"<h1>{html.escape(entity.title, quote=False)}</h1>", box]
        doc.body += [paragraph(sentences[:cut]), paragraph(sentences[cut:] + fillers)]
        doc.body += self._see_also(doc, entity, region)
        doc.body += self._lists(doc, entity, rng)
        doc.after.append(self._related(doc, entity, region, rng))
        return doc

    def _see_also(self, doc: Doc, entity: Entity, region: Region) -> list[str]:
        """On some pages, a line of the text that links to a page under another name of what it is about; it states nothing."""
        dice = stable("see also", self.site.seed, entity.key)
        others = [other for other in region.of(entity.type) if other.aliases and other is not entity]
        if not others or dice % _SEE_ALSO_EVERY:
            return []
        other = others[dice % len(others)]
        return [paragraph([f"See also {self.site.link(doc, other, other.aliases[0])}."])]

    def _lists(self, doc: Doc, entity: Entity, rng: random.Random) -> list[str]:
        parts = []
        for kind in LISTS.values():
            if entity.type not in kind.holders or kind.id == "papers":
                continue
            facts = list_facts(entity, kind)
            if facts:
                parts.append(render_list(self.site, doc, kind, facts, rng))
        if entity.inverse.get("authors"):
            href = self.site.href(doc, author_place(entity))
            parts.append(f'<p>Papers are listed on the <a href="{href}">author page of the archive</a>.</p>')
        parts += self._incomplete(doc, entity, rng)
        return [part for part in parts if part]

    def _incomplete(self, doc: Doc, entity: Entity, rng: random.Random) -> list[str]:
        """A list that leaves members out, and says so in its heading."""
        relation, noun = {"person": ("laureates", "awards"), "country": ("in_country", "cities")}.get(
            entity.type, ("", "")
        )
        facts = entity.inverse.get(relation, [])
        if len(facts) < 2:
            return []
        shown = rng.sample(facts, min(4, len(facts) - 1))
        for fact in shown:
            doc.state(fact)
        items = "".join(f"<li>{self.site.link(doc, fact.subject, fact.subject.title)}</li>\n" for fact in shown)
        return [f"<h2>{rng.choice(INCOMPLETE)} {noun}</h2>\n<ul>\n{items}</ul>"]

    def _related(self, doc: Doc, entity: Entity, region: Region, rng: random.Random) -> str:
        others = [e for e in region.of(entity.type) if e is not entity]
        chosen = rng.sample(others, min(3, len(others)))
        extra = []
        dice = stable("related", self.site.seed, entity.key)
        if dice % 9 == 0:
            extra.append(
                f'<a href="{wiki_path("Missing article " + entity.name.split()[-1])}">An article not yet written</a>'
            )
        if dice % 11 == 0:
            extra.append(f'<a href="/w/edit.php?page={quote(entity.name)}">Edit</a>')
        moved = next((e for e in others if e.aliases and e.type in {"city", "company"}), None)
        if moved is not None:
            extra.append(f'<a href="{wiki_path(moved.aliases[0])}">{html.escape(moved.aliases[0], quote=False)}</a>')
        if dice % 23 == 0 and chosen:
            target = place_of(chosen[0]).path.removeprefix("/wiki/")
            doc.duplicates.append(Place("wiki", f"/w/index.php?title={target}"))
            extra.append(f'<a href="/w/index.php?title={target}">Old address</a>')
        if chosen:
            extra.append(f'<a href="{self.site.href(doc, place_of(chosen[0]))}#content">More</a>')
        return related_box(self.site, doc, chosen, extra)

    def _disambiguation(self, place: Place, people: tuple[Entity, ...]) -> Doc:
        name = people[0].name
        doc = Doc(place, f"{name} (disambiguation)")
        items = "".join(f"<li>{self.site.link(doc, person, person.title)}</li>\n" for person in people)
        doc.body += [
            f"<h1>{html.escape(name, quote=False)}</h1>",
            f"<p>{html.escape(name, quote=False)} may refer to:</p>",
        ]
        doc.body.append(f"<ul>\n{items}</ul>")
        return doc

    # -- portals, indexes and special pages

    def _indexes(self, region: Region) -> Iterator[tuple[Place, str, list[Entity]]]:
        groups = {kind: group for kind, group in region.by_type.items() if kind not in ELSEWHERE}
        if sum(map(len, groups.values())) <= _CHUNK:
            yield (
                Place("wiki", f"/wiki/Index:All/{region.number + 1}"),
                "all articles",
                [e for g in groups.values() for e in g],
            )
            return
        for kind, group in groups.items():
            group = sorted(group, key=lambda entity: entity.title)
            for start in range(0, len(group), _CHUNK):
                part = start // _CHUNK + 1
                path = f"/wiki/Index:{_plural(kind).capitalize()}/{region.number + 1}/{part}"
                yield Place("wiki", path), _plural(kind), group[start : start + _CHUNK]

    def _main(self, place: Place) -> Doc:
        doc = Doc(place, "Main Page")
        doc.body += [
            "<h1>Main Page</h1>",
            paragraph(["Welcome to the encyclopaedia.", "Choose an index to start reading."]),
        ]
        regions = self.graph.plan.num_regions
        if regions == 1:
            doc.body.append(self._index_links(doc, self.graph.region(0)))
        else:
            items = "".join(f'<li><a href="/wiki/Portal:{n + 1}">Portal {n + 1}</a></li>\n' for n in range(regions))
            doc.body.append(f"<ul>\n{items}</ul>")
        return doc

    def _index_links(self, doc: Doc, region: Region) -> str:
        items = []
        for place, name, _ in self._indexes(region):
            part = place.path.rpartition("/")[2]
            note = ""
            if stable("session", place.path) % 4 == 0:
                tracked = f"{place.path}?sid={stable(self.site.seed, place.path):08x}"
                doc.duplicates.append(Place("wiki", tracked))
                note = f' <a href="{tracked}">(your last visit)</a>'
            items.append(f'<li><a href="{place.path}">Index of {name} ({part})</a>{note}</li>\n')
        return f"<ul>\n{''.join(items)}</ul>"

    def _named_page(self, place: Place, title: str) -> Doc | None:
        space, _, rest = title.partition(":")
        if space == "Special":
            doc = Doc(place, title, [f"<h1>{html.escape(title)}</h1>", paragraph(["A page made for editors."])])
            doc.body.append(f'<p><a href="{ORPHAN_PATH}">Draft</a></p>')
            return doc
        if place.path == ORPHAN_PATH:
            return Doc(place, title, ["<h1>Draft</h1>", paragraph(["Nothing links here but a page for editors."])])
        number = rest.split("/")[-2 if space == "Index" and rest.count("/") == 2 else -1]
        if not number.isdigit() or not 0 < int(number) <= self.graph.plan.num_regions:
            return None
        region = self.graph.region(int(number) - 1)
        if space == "Portal" and rest == number and self.graph.plan.num_regions > 1:
            following = (int(number)) % self.graph.plan.num_regions + 1
            doc = Doc(place, f"Portal {number}", [f"<h1>Portal {number}</h1>"])
            doc.body += [self._index_links(doc, region), f'<p><a href="/wiki/Portal:{following}">Next portal</a></p>']
            return doc
        for index, name, members in self._indexes(region) if space == "Index" else ():
            if index.path == place.path:
                doc = Doc(place, f"Index of {name}", [f"<h1>Index of {name}</h1>"])
                items = "".join(f"<li>{self.site.link(doc, member, member.title)}</li>\n" for member in members)
                names = [name for name, people in region.ambiguous.items() if people[0] in members]
                items += "".join(f'<li><a href="{wiki_path(name)}">{html.escape(name)}</a></li>\n' for name in names)
                doc.body.append(f"<ul>\n{items}</ul>")
                return doc
        return None


def _title(path: str) -> str:
    return unquote(path.removeprefix("/wiki/")).replace("_", " ")


class Divided(NamedTuple):
    """How an article tells its facts."""

    boxed: list[Fact]
    told: list[Fact]
    intro: list[Combined]
    """At most one shape, for the first sentence."""


def _divide(entity: Entity, prose: Prose, rng: random.Random) -> Divided:
    """Which facts the infobox shows, which ones the prose tells, and the shape of the first sentence."""
    facts = [
        group[0]
        for relation, group in entity.facts.items()
        if RELATIONS[relation].cardinality is not Cardinality.LIST and group[0].current
    ]
    rng.shuffle(facts)
    usable = prose.usable_combined()
    intro = [rng.choice(usable)] if usable and rng.random() < 0.6 else []
    covered = set(intro[0].relations) if intro else set()
    boxed, told = [], []
    for fact in facts:
        dice = rng.random()
        if fact.relation in covered:
            if dice < 0.4:
                boxed.append(fact)
            continue
        if dice < _IN_PROSE:
            told.append(fact)
        if dice < _IN_BOTH or dice >= _IN_PROSE:
            boxed.append(fact)
    for relation, group in entity.facts.items():
        if RELATIONS[relation].cardinality is Cardinality.LIST and group and rng.random() < 0.25:
            told.append(rng.choice(group))
    return Divided(boxed, told, intro)
