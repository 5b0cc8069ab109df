"""The talk host: threads in which users claim to know something about a thing, and are often wrong.

Not from the paper. A claim is no fact: no thread counts as a page that states one. The threads are what search finds beside the
thing's own page, so that a reader who believes a search result is often misled, and one who opens the page is not.
"""

import html
import random
import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

from webdancer.world.build import NOW
from webdancer.world.fact_graph import FactGraph
from webdancer.world.graph import MONTHS, Entity, Fact, Region, date_text
from webdancer.world.layout import duplicate_link, frame, page_rng, paragraph
from webdancer.world.lexicon import RELATIONS, Cardinality, ObjectKind
from webdancer.world.lexicon_talk import CLAIM, HEDGES, NICKNAMES, NOUNS, TITLE
from webdancer.world.prose import show_value
from webdancer.world.site import Doc, Place, Site, stable, thing_of_thread, thread_place

ROBOTS = (
    "User-agent: *\nDisallow: /login\n{delay}\n"
    "User-agent: GreedyBot\nDisallow: /\n\nSitemap: http://{host}/sitemap.xml\n"
)
MIN_POSTS, MAX_POSTS = 2, 5
_MAX_CHARS = 70
"""A longer post takes the shortest hedge, so that a search result has room for a post of three."""
_CHUNK = 80
_PRIME = 9973


class Claim(NamedTuple):
    """What a post says of a fact."""

    fact: Fact
    value: str
    """As it is printed, not escaped."""
    right: bool


def has_thread(site: Site, entity: Entity) -> bool:
    """Whether there is a thread about the thing."""
    return bool(claimable(entity))


def claimable(entity: Entity) -> list[Fact]:
    """The facts about a thing that can be claimed: one value for all time. Those about other things come first."""
    facts = [
        group[0]
        for relation, group in entity.facts.items()
        if relation in NOUNS and RELATIONS[relation].cardinality is Cardinality.FUNCTIONAL and len(group) == 1
    ]
    return sorted(facts, key=lambda fact: fact.object is None)


def claims_about(site: Site, entity: Entity, region: Region) -> list[Claim]:
    """The claims of a thing's thread: all that name another thing, and enough others to fill it."""
    facts = claimable(entity)
    num_objects = sum(fact.object is not None for fact in facts)
    least = MIN_POSTS + stable("posts", site.seed, entity.key) % 2
    return [_claim(site, fact, region) for fact in facts[: min(MAX_POSTS, max(least, num_objects))]]


def _chance(*parts: object) -> float:
    """A number from 0 to 1.

    Taken modulo a prime: the leading bits of the checksums of two keys differ in the same way wherever the keys do, so that from
    one right claim of a thread the others could be told.
    """
    return stable(*parts) % _PRIME / _PRIME


def _claim(site: Site, fact: Fact, region: Region) -> Claim:
    if _chance("right", site.seed, fact.subject.key, fact.relation) >= site.right_share:
        wrong = _wrong_value(fact, region, random.Random(f"talk/{site.seed}/{fact.subject.key}/{fact.relation}"))
        if wrong is not None:
            return Claim(fact, wrong, right=False)
    return Claim(fact, html.unescape(show_value(fact)), right=True)


def _wrong_value(fact: Fact, region: Region, rng: random.Random) -> str | None:
    """A value that might be true but is not; None in a region that holds no other."""
    match RELATIONS[fact.relation].kind:
        case ObjectKind.ENTITY:
            return _wrong_name(fact, region, rng)
        case ObjectKind.TEXT:
            others = {
                other.value for entity in region.of(fact.subject.type) for other in entity.facts.get(fact.relation, ())
            }
            return rng.choice(sorted(others - {fact.value})) if others - {fact.value} else None
        case ObjectKind.NUMBER:
            number = int(fact.value)
            off = max(1, round(number * rng.uniform(0.06, 0.25)))
            return f"{number - off if number > off and rng.random() < 0.5 else number + off:,}"
        case ObjectKind.YEAR:
            year, off = int(fact.value), rng.randint(1, 9)
            return str(year - off if year + off > NOW or rng.random() < 0.5 else year + off)
        case ObjectKind.DATE:
            return _wrong_date(fact.value, rng)


def _wrong_name(fact: Fact, region: Region, rng: random.Random) -> str | None:
    """The name of another thing of the same type, and of the same trade where there is one."""
    true = fact.object
    assert true is not None
    taken = {true.name, *true.aliases, fact.subject.name}
    others = [other for other in region.of(true.type) if other.name not in taken]
    alike = [other for other in others if other.role == true.role]
    return rng.choice(alike or others).name if others else None


def _wrong_date(text: str, rng: random.Random) -> str:
    day, month, year = text.split()
    true = date(int(year), MONTHS.index(month) + 1, int(day))
    wrong = true + timedelta(days=rng.choice((-1, 1)) * rng.randint(1, 900))
    return date_text(wrong if wrong.year <= NOW else true - (wrong - true))


class Talk:
    """Writes the pages of the talk host."""

    def __init__(self, site: Site, graph: FactGraph) -> None:
        self.site, self.graph = site, graph

    def html(self, doc: Doc, *, utf8_declared: bool = True) -> str:
        """The page around a document."""
        nav = [("All threads", "/"), ("Sign in", "/login")]
        return frame(self.site, doc, utf8_declared=utf8_declared, nav=nav, footer="Everybody may post.")

    def places(self, region: Region) -> Iterator[Place]:
        """All pages of a region."""
        if region.number == 0:
            yield from (Place("talk", path) for path in ("/", "/privacy", "/login"))
        if self.graph.plan.num_regions > 1:
            yield Place("talk", f"/list/{region.number + 1}")
        yield from (place for place, _ in self._lists(region))
        yield from (thread_place(entity) for entity in self._things(region))

    def redirect(self, path: str, query: str) -> str | None:
        """A slash too many at the end."""
        return path.rstrip("/") if path.endswith("/") and path != "/" else None

    def page(self, path: str, query: str) -> Doc | None:
        """The document at a path, or None."""
        place = Place("talk", path)
        if path == "/privacy":
            return Doc(place, "Privacy", ["<h1>Privacy</h1>", paragraph(["Posts are public."])])
        if path == "/login":
            return Doc(place, "Sign in", ["<h1>Sign in</h1>", paragraph(["Please give your nickname and password."])])
        if path == "/":
            return self._front(place)
        if path.startswith("/list/"):
            return self._list(place)
        match = re.fullmatch(r"/t/(\d{1,9})", path)
        thing = self.graph.find(*thing_of_thread(int(match[1]))) if match else None
        if thing is None or thread_place(thing) != place or not has_thread(self.site, thing):
            return None
        return self._thread(thing)

    def _things(self, region: Region) -> list[Entity]:
        """The things of a region that have a thread."""
        return [entity for entity in region.entities() if has_thread(self.site, entity)]

    def _thread(self, thing: Entity) -> Doc:
        doc = Doc(thread_place(thing), TITLE.format(title=thing.title))
        rng = page_rng(self.site, f"talk/{thing.key}")
        claims = claims_about(self.site, thing, self.graph.region(thing.region))
        rng.shuffle(claims)
        doc.body.append(f"<h1>{html.escape(doc.title, quote=False)}</h1>")
        doc.body += [paragraph([html.escape(self._sentence(claim, rng), quote=False)]) for claim in claims]
        users = ", ".join(f"{rng.choice(NICKNAMES)}{rng.randrange(1000)}" for _ in claims)
        about = self.site.link(doc, thing, thing.title)
        print_link = duplicate_link(doc, "Print", "print=1", share=14)
        doc.after.append(f'<aside class="related-links">About {about}. Posts by {users}. {print_link}</aside>\n')
        return doc

    def _sentence(self, claim: Claim, rng: random.Random) -> str:
        name = claim.fact.subject.name
        rest = CLAIM.format(hedge="", noun=NOUNS[claim.fact.relation], name=name, value=claim.value)
        hedges = [hedge for hedge in HEDGES if len(hedge + rest) <= _MAX_CHARS]
        return rng.choice(hedges or [min(HEDGES, key=len)]) + rest

    def _lists(self, region: Region) -> Iterator[tuple[Place, list[Entity]]]:
        things = sorted(self._things(region), key=lambda thing: thing.title)
        for start in range(0, len(things), _CHUNK):
            part = start // _CHUNK + 1
            yield Place("talk", f"/list/{region.number + 1}/{part}"), things[start : start + _CHUNK]

    def _front(self, place: Place) -> Doc:
        doc = Doc(place, "Talk", ["<h1>Talk</h1>", paragraph(["Ask, and somebody will answer."])])
        regions = self.graph.plan.num_regions
        if regions == 1:
            doc.body.append(_path_list([part.path for part, _ in self._lists(self.graph.region(0))]))
        else:
            doc.body.append(_path_list([f"/list/{number + 1}" for number in range(regions)]))
        return doc

    def _list(self, place: Place) -> Doc | None:
        match = re.fullmatch(r"/list/(\d{1,6})(?:/\d{1,3})?", place.path)
        if match is None or not 0 < int(match[1]) <= self.graph.plan.num_regions:
            return None
        lists = list(self._lists(self.graph.region(int(match[1]) - 1)))
        if place.path == f"/list/{match[1]}" and self.graph.plan.num_regions > 1:
            name = f"Threads, part {match[1]}"
            return Doc(place, name, [f"<h1>{name}</h1>", _path_list([part.path for part, _ in lists])])
        for part, things in lists:
            if part == place:
                doc = Doc(place, "Threads", ["<h1>Threads</h1>"])
                rows = "".join(f"<li>{self._link(doc, thing)}</li>\n" for thing in things)
                doc.body.append(f"<ul>\n{rows}</ul>")
                return doc
        return None

    def _link(self, doc: Doc, thing: Entity) -> str:
        return f'<a href="{self.site.href(doc, thread_place(thing))}">{html.escape(thing.title, quote=False)}</a>'


def _path_list(paths: list[str]) -> str:
    items = "".join(f'<li><a href="{path}">{path.strip("/")}</a></li>\n' for path in paths)
    return f"<ul>\n{items}</ul>"
