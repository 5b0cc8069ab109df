"""The forms of the embedded web's English: what a sentence shape is and which slots it may hold.

Not from the paper: the paper reads the live web, this project's default reads a generated one.

Slots of a sentence shape
    {s}           the subject at the start of the sentence: `Ana Velk`, in running prose also `She`, `It`, `The film`
    {s_mid}       the subject inside the sentence: `Ana Velk`, `she`, `it`, `the film`
    {s_poss}      `Ana Velk's`, `Her`, `Its`, `The film's`;  {s_poss_mid} the same inside the sentence
    {o}           the object: a name, a number (`12,400`), a date (`3 March 1954` or `March 3, 1954`) or a word
    {o_start}     the object at the start of the sentence
    {o_a}         the object with its indefinite article (`an architect`)
    {y}           the year of the fact: of an award, of an acquisition, or the year as of which a changing value holds
    {born_in} …   in shapes of several facts: the object of the relation of that name

How names are written in sentences
    - Rivers, prizes, museums, bridges and institutes take `the`: `the River Orn`, `the Velmar Prize`. The article is no
      part of the name.
    - Titles of papers stand between “ and ”.
    - A person who shares the name with another is mentioned with the occupation: `the architect Ana Velk`. In lists,
      tables and infoboxes it is the page's title instead: `Ana Velk (architect)`.
    - A shape that opens with `~` is contorted on purpose (the mark is not printed).
"""

from dataclasses import dataclass
from enum import StrEnum

CONTORTED = "~"


class ObjectKind(StrEnum):
    """What stands on the object's side of a relation."""

    ENTITY = "entity"
    TEXT = "text"
    NUMBER = "number"
    YEAR = "year"
    DATE = "date"


class Cardinality(StrEnum):
    """Functional for all time, volatile (one current value), or a list."""

    FUNCTIONAL = "F"
    VOLATILE = "V"
    LIST = "L"


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation of the fact graph and the English that states it."""

    id: str
    subjects: tuple[str, ...]
    kind: ObjectKind
    cardinality: Cardinality
    objects: tuple[str, ...]
    """Entity types of the object; empty unless `kind` is entity."""
    labels: tuple[str, ...]
    """Infobox labels, any of which may head the row."""
    shapes: tuple[str, ...]
    unit: str = ""
    """Unit of a number, printed after it in infoboxes and in the shapes' own words in prose."""


@dataclass(frozen=True, slots=True)
class Combined:
    """A sentence that states several facts of one subject."""

    relations: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class ListKind:
    """A complete list on its holder's page."""

    id: str
    holders: tuple[str, ...]
    relations: tuple[str, ...]
    """The relations that the list gives in full."""
    inverse: bool
    """True: the members are the relations' subjects and the holder is their object."""
    headings: tuple[str, ...]
    header: tuple[str, ...]
    """Column titles where the list is a table; a column `Year` holds the member's year."""


def _parts(types: str) -> tuple[str, ...]:
    return tuple(part for part in types.split("|") if part)


def functional(
    id: str, subjects: str, kind: str, labels: tuple[str, ...], shapes: tuple[str, ...], unit: str = ""
) -> Relation:
    """A relation with one object for all time; `kind` is an object kind or entity types joined by `|`."""
    return _relation(id, subjects, kind, Cardinality.FUNCTIONAL, labels, shapes, unit)


def volatile(
    id: str, subjects: str, kind: str, labels: tuple[str, ...], shapes: tuple[str, ...], unit: str = ""
) -> Relation:
    """A relation whose object changes over the years."""
    return _relation(id, subjects, kind, Cardinality.VOLATILE, labels, shapes, unit)


def listed(id: str, subjects: str, kind: str, labels: tuple[str, ...], shapes: tuple[str, ...]) -> Relation:
    """A relation with several objects."""
    return _relation(id, subjects, kind, Cardinality.LIST, labels, shapes, "")


def _relation(
    id: str,
    subjects: str,
    kind: str,
    cardinality: Cardinality,
    labels: tuple[str, ...],
    shapes: tuple[str, ...],
    unit: str,
) -> Relation:
    literal = kind in set(ObjectKind) - {ObjectKind.ENTITY}
    object_kind = ObjectKind(kind) if literal else ObjectKind.ENTITY
    objects = () if literal else _parts(kind)
    return Relation(id, _parts(subjects), object_kind, cardinality, objects, labels, shapes, unit)
