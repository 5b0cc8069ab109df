"""What the scribe knows of the world's kinds of things: relations between them and the lists that pages carry.

A relation here is what an English phrase can say. Where English does not tell apart ("the architect of X" for a museum
and for a bridge) one relation covers several ids of the fact graph: `covers` names them, for the proofs in the tests.
"""

from dataclasses import dataclass


def word_set(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


ENTITY_TYPES = word_set(
    "person city country river lake university company film novel album band museum bridge prize paper repository"
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A functional relation. `domain` and `range` are entity types, or a literal: year, date, number, text."""

    id: str
    covers: tuple[str, ...]
    domain: frozenset[str]
    range: frozenset[str]
    volatile: bool = False
    """The value changes from year to year: no question may rest on it."""
    hint: str = ""
    """What people that stand here usually are."""

    @property
    def is_entity(self) -> bool:
        """Whether the value is a thing with a page, so that a chain can go on from it."""
        return self.range <= ENTITY_TYPES


def _relation(line: str) -> Relation:
    name, covers, domain, range_, *rest = line.split()
    return Relation(
        id=name,
        covers=(name,) if covers == "=" else tuple(covers.split(",")),
        domain=frozenset(domain.split(",")),
        range=frozenset(range_.split(",")),
        volatile="volatile" in rest,
    )


# id, ids of the fact graph ("=": the same), domain, range
_RELATIONS = """\
born_in = person city
birth_date = person date
death_date = person date
studied_at = person university
advisor = person person
spouse = person person
employer = person company,university
occupation = person text
country in_country,lake_country city,lake country
on_river = city river
population = city number volatile
founded city_founded,univ_founded,company_founded city,university,company year
founder univ_founder,company_founder university,company person
partner_city = city city
mayor = city person volatile
capital = country city
currency = country text
language = country text
river_length = river number
flows_into = river lake
lake_area = lake number
lake_depth = lake number
located_in univ_city,museum_city,bridge_city university,museum,bridge city
headquarters = company city
ceo = company person volatile
employees = company number volatile
acquired_by = company company
director = film person
released film_year,album_year film,album year
based_on = film novel
filmed_in = film city
runtime = film number
author = novel person
published novel_year novel year
set_in = novel city
publisher = novel company
performer = album band
recorded_in = album city
label = album company
producer = album person
formed_in = band city
formed_year = band year
opened museum_opened,bridge_opened museum,bridge year
architect museum_architect,bridge_architect museum,bridge person
crosses = bridge river
bridge_length = bridge number
named_after = prize person
awarded_by = prize university,company
first_awarded = prize year
submitted = paper date
field = paper text
code = paper repository
funded_by = paper company
num_samples = paper number
maintainer = repository person
programming_language = repository text
licence = repository text
first_release = repository date
implements = repository paper
stars = repository number volatile
"""
RELATIONS: dict[str, Relation] = {r.id: r for r in map(_relation, _RELATIONS.splitlines())}

RELATION_OF: dict[str, str] = {covered: r.id for r in RELATIONS.values() for covered in r.covers}
"""Id in the fact graph → relation here."""


@dataclass(frozen=True, slots=True)
class ListKind:
    """A complete list on its holder's page. A member's page may state the same membership by a relation of its own."""

    id: str
    holder: str
    members: frozenset[str]
    forward: tuple[str, ...] = ()
    """Ids of the fact graph whose subject is the holder."""
    inverse: tuple[str, ...] = ()
    """Ids of the fact graph whose object is the holder."""


def _list_kind(line: str) -> ListKind:
    name, holder, members, direction, ids = line.split()
    relations = tuple(ids.split(","))
    return ListKind(
        name,
        holder,
        frozenset(members.split(",")),
        forward=relations if direction == ">" else (),
        inverse=relations if direction == "<" else (),
    )


# id, holder, members, ">" for a relation of the holder and "<" for one of the members, ids of the fact graph
_LISTS = """\
films_directed person film < director
novels_written person novel < author
film_appearances person film < cast
works_designed person museum,bridge < museum_architect,bridge_architect
albums_produced person album < producer
papers_written person paper < authors
albums band album < performer
members band person > members
laureates prize person > laureates
novels_published company novel < publisher
albums_released company album < label
companies_acquired company company < acquired_by
cast film person > cast
references paper paper > references
dependencies repository repository > dependencies
bridges river bridge < crosses
cities_on_river river city < on_river
alumni university person < studied_at
natives city person < born_in
"""
LISTS: dict[str, ListKind] = {k.id: k for k in map(_list_kind, _LISTS.splitlines())}


INVERSE_LISTS: dict[str, tuple[str, ...]] = {
    relation: tuple(k.id for k in LISTS.values() if any(RELATION_OF.get(i) == relation for i in k.inverse))
    for relation in RELATIONS
}
"""Relation → the lists of its value's page that give it the other way round: director → films_directed."""
