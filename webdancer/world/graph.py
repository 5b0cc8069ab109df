"""Entities and facts of the embedded web, and one region of its fact graph."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def date_text(day: date) -> str:
    """`3 March 1954`."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


@dataclass(slots=True, eq=False, repr=False)
class Entity:
    """One thing that has a page. Compared by identity."""

    type: str
    number: int
    """Its place among all entities of its type in the whole web."""
    name: str
    title: str
    """The name, with the occupation in parentheses where two people share it."""
    region: int
    aliases: tuple[str, ...] = ()
    female: bool = False
    role: str = ""
    """Occupation of a person, kind of a company."""
    since: date = date(1, 1, 1)
    """Birth, foundation, opening or release: nothing of this entity is earlier."""
    until: date = date(9999, 1, 1)
    """Death, where there was one."""
    facts: dict[str, list["Fact"]] = field(default_factory=dict)
    inverse: dict[str, list["Fact"]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.type}:{self.number}"

    def __repr__(self) -> str:
        return f"<{self.key} {self.title}>"

    def one(self, relation: str) -> "Fact | None":
        """The current fact of the relation, if there is one."""
        return next((fact for fact in self.facts.get(relation, ()) if fact.current), None)

    def object(self, relation: str) -> "Entity | None":
        """The object of the current fact."""
        fact = self.one(relation)
        return fact.object if fact else None


@dataclass(slots=True, eq=False, repr=False)
class Fact:
    """`relation(subject, object)`: one statement, by identity."""

    subject: Entity
    relation: str
    object: Entity | None
    value: str
    """The canonical answer: a name without disambiguation, digits, `3 March 1954`, or a word."""
    year: int | None = None
    current: bool = True

    def __repr__(self) -> str:
        return f"<{self.relation} {self.subject.title!r} {self.value!r}>"


@dataclass(slots=True, eq=False)
class Article:
    """One news article: a day and the facts that it states, the first of which makes the headline."""

    number: int
    day: date
    facts: tuple[Fact, ...]
    background: tuple[Fact, ...] = ()


@dataclass(slots=True)
class Region:
    """A part of the web of up to about 3,400 pages, made without looking at the others."""

    number: int
    by_type: dict[str, list[Entity]] = field(default_factory=dict)
    articles: list[Article] = field(default_factory=list)
    by_title: dict[str, Entity] = field(default_factory=dict)
    by_key: dict[str, Entity] = field(default_factory=dict)
    ambiguous: dict[str, tuple[Entity, ...]] = field(default_factory=dict)
    """Name → the people who share it."""

    def of(self, kind: str) -> list[Entity]:
        """All entities of a type, oldest number first."""
        return self.by_type.get(kind, [])

    def entities(self) -> Iterator[Entity]:
        """All entities."""
        for group in self.by_type.values():
            yield from group

    def facts(self) -> Iterator[Fact]:
        """All facts, by subject."""
        for entity in self.entities():
            for group in entity.facts.values():
                yield from group
