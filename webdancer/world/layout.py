"""What the pages of all hosts have in common: the frame around the text, infoboxes, complete and incomplete lists."""

import html
import random
from collections.abc import Iterable, Sequence

from webdancer.world.graph import Entity, Fact
from webdancer.world.lexicon import RELATIONS, Cardinality, ListKind
from webdancer.world.prose import show_value
from webdancer.world.site import Doc, Place, Site, stable

_YEAR_OF = {
    "film": "film_year", "novel": "novel_year", "album": "album_year", "museum": "museum_opened", "bridge": "bridge_opened",
}  # fmt: skip
_UNDATED_LISTS = frozenset({"cast", "members", "dependencies", "cities", "alumni"})


def page_rng(site: Site, key: str) -> random.Random:
    """The random choices of one page; the same in every process."""
    return random.Random(f"page/{site.seed}/{key}")


def paragraph(sentences: Iterable[str]) -> str:
    """One paragraph."""
    return f"<p>{' '.join(sentences)}</p>"


def frame(site: Site, doc: Doc, *, utf8_declared: bool = True, nav: Sequence[tuple[str, str]], footer: str) -> str:
    """The whole HTML page: navigation, cookie banner, main text, boxes, footer."""
    charset = '<meta charset="utf-8">' if utf8_declared else ""
    links = " ".join(f'<a href="{href}">{label}</a>' for label, href in nav)
    name = site.hosts[doc.place.host]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{charset}<title>{html.escape(doc.title, quote=False)}</title>{"".join(doc.head)}'
        f'<link rel="stylesheet" href="/static/style.css"></head>\n<body>\n<header><a class="logo" href="/">{name}</a>'
        f'<nav class="menu">{links}</nav></header>\n'
        '<div class="cookie-banner" role="dialog">We use cookies to improve your visit. '
        '<button>Accept all</button> <a href="/privacy">Settings</a></div>\n'
        f'<main id="content">\n{chr(10).join(doc.body)}\n</main>\n{"".join(doc.after)}'
        f'<footer>{footer} <a href="/privacy">Privacy</a></footer>\n</body></html>\n'
    )


def related_box(site: Site, doc: Doc, entities: Sequence[Entity], extra: Sequence[str] = ()) -> str:
    """A box of links to more or less related pages; aliases serve as link text."""
    items = [site.link(doc, entity, entity.aliases[0] if entity.aliases else entity.title) for entity in entities]
    rows = "".join(f"<li>{item}</li>" for item in [*items, *extra])
    return f'<aside class="related-links"><h3>Related</h3><ul>{rows}</ul></aside>\n'


def infobox(site: Site, doc: Doc, groups: Sequence[Sequence[Fact]], rng: random.Random) -> str:
    """A table of `Label | value` rows, one row for each group of facts of the same relation."""
    rows = []
    for facts in groups:
        relation = RELATIONS[facts[0].relation]
        for fact in facts:
            doc.state(fact)
        cells = ", ".join(_cell(site, doc, fact) for fact in facts)
        rows.append(f"<tr><th>{rng.choice(relation.labels)}</th><td>{cells}</td></tr>")
    if not rows:
        return ""
    return f'<table class="infobox">{"".join(rows)}</table>'


def _cell(site: Site, doc: Doc, fact: Fact) -> str:
    relation = RELATIONS[fact.relation]
    if fact.object is not None:
        text = site.link(doc, fact.object, fact.object.title)
    else:
        text = show_value(fact) + (f" {relation.unit}" if relation.unit else "")
    if fact.year is None or relation.cardinality is Cardinality.LIST:
        return text
    if relation.cardinality is Cardinality.VOLATILE:
        word = "since" if fact.object is not None else "as of"
        return f"{text} ({word} {fact.year})"
    return f"{text} ({fact.year})"


def list_facts(holder: Entity, kind: ListKind) -> list[Fact]:
    """The facts whose members stand in the holder's list of this kind."""
    side = holder.inverse if kind.inverse else holder.facts
    return [fact for relation in kind.relations for fact in side.get(relation, ())]


def member_of(kind: ListKind, fact: Fact) -> Entity:
    """The member's side of a fact of the list."""
    if kind.inverse:
        return fact.subject
    assert fact.object is not None
    return fact.object


def _member_year(kind: ListKind, fact: Fact) -> tuple[int | None, Fact | None]:
    """The year printed with a member, and the fact that it states, if it states one in full."""
    if fact.year is not None:
        return fact.year, None
    member = member_of(kind, fact)
    if kind.id in _UNDATED_LISTS:
        return None, None
    if member.type in _YEAR_OF:
        return member.since.year, member.one(_YEAR_OF[member.type])
    return member.since.year, None


def render_list(site: Site, doc: Doc, kind: ListKind, facts: Sequence[Fact], rng: random.Random) -> str:
    """A complete list under its heading, as `- Member (1987)` items or as a table."""
    rows = []
    for fact in facts:
        year, year_fact = _member_year(kind, fact)
        doc.state(fact)
        if year_fact is not None:
            doc.state(year_fact)
        rows.append((year, member_of(kind, fact)))
    if kind.id != "references":
        rows.sort(key=lambda row: (row[0] or 0, row[1].title))
    as_table = rng.random() < 0.4 and all(year is not None for year, _ in rows)
    heading = rng.choice(kind.headings)
    links = [(year, site.link(doc, member, member.title)) for year, member in rows]
    section = f'<h2 id="{kind.id}">{heading}</h2>\n'
    if as_table:
        head = "".join(f"<th>{column}</th>" for column in kind.header)
        body = "".join(f"<tr><td>{year}</td><td>{link}</td></tr>\n" for year, link in links)
        return f'{section}<table class="list"><tr>{head}</tr>\n{body}</table>'
    items = "".join(f"<li>{link}{f' ({year})' if year is not None else ''}</li>\n" for year, link in links)
    return f"{section}<ul>\n{items}</ul>"


def duplicate_link(doc: Doc, label: str, query: str, *, share: int) -> str:
    """On one page of `share`, a link to the same page under another URL."""
    if stable("duplicate", doc.place.path) % share:
        return ""
    path = f"{doc.place.path}?{query}"
    doc.duplicates.append(Place(doc.place.host, path))
    return f'<a href="{path}">{label}</a>'
