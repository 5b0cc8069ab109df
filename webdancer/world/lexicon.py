"""The English of the embedded web: which words, labels and headings state which fact.

Pure data, gathered from the files lexicon_*; lexicon_types explains the slots.
"""

from webdancer.world import lexicon_news, lexicon_people, lexicon_places, lexicon_tech, lexicon_works
from webdancer.world.lexicon_types import CONTORTED, Cardinality, Combined, ListKind, ObjectKind, Relation

__all__ = [
    "ALIASES", "COMBINED", "CONTORTED", "FIELDS", "INCOMPLETE", "LICENCES", "LISTS", "NEWS",
    "OCCUPATIONS", "PROGRAMMING_LANGUAGES", "RELATIONS", "TYPE_NOUNS", "Cardinality", "Combined", "ListKind",
    "ObjectKind", "Relation",
]  # fmt: skip

_MODULES = (lexicon_people, lexicon_places, lexicon_works, lexicon_tech)

RELATIONS: dict[str, Relation] = {relation.id: relation for module in _MODULES for relation in module.RELATIONS}

COMBINED: tuple[Combined, ...] = tuple(combined for module in _MODULES for combined in module.COMBINED)
"""Sentences of several facts. A slot `{X_a}` is the object of relation X with its indefinite article."""

NEWS: dict[str, tuple[str, ...]] = lexicon_news.NEWS

LISTS: dict[str, ListKind] = {
    kind.id: kind
    for kind in (
        ListKind(
            "films_directed",
            ("person",),
            ("director",),
            True,
            ("Films directed", "Films as director", "Directing credits"),
            ("Year", "Film"),
        ),
        ListKind(
            "film_appearances",
            ("person",),
            ("cast",),
            True,
            ("Film appearances", "Films as actor", "Acting credits"),
            ("Year", "Film"),
        ),
        ListKind(
            "novels_written",
            ("person",),
            ("author",),
            True,
            ("Novels", "Novels written", "Bibliography"),
            ("Year", "Novel"),
        ),
        ListKind(
            "works_designed",
            ("person",),
            ("museum_architect", "bridge_architect"),
            True,
            ("Works designed", "Museums and bridges designed", "Architectural works"),
            ("Year", "Work"),
        ),
        ListKind(
            "albums_produced",
            ("person",),
            ("producer",),
            True,
            ("Albums produced", "Albums as producer", "Production credits"),
            ("Year", "Album"),
        ),
        ListKind(
            "papers",
            ("person",),
            ("authors",),
            True,
            ("Papers", "Papers by this author", "Articles in the archive"),
            ("Year", "Title"),
        ),
        ListKind("albums", ("band",), ("performer",), True, ("Albums", "Discography"), ("Year", "Album")),
        ListKind("members", ("band",), ("members",), False, ("Members", "Line-up", "Band members"), ("Musician",)),
        ListKind(
            "laureates", ("prize",), ("laureates",), False, ("Laureates", "Recipients", "Winners"), ("Year", "Laureate")
        ),
        ListKind(
            "novels_published",
            ("company",),
            ("publisher",),
            True,
            ("Novels published", "Published novels", "Catalogue of novels"),
            ("Year", "Novel"),
        ),
        ListKind(
            "albums_released",
            ("company",),
            ("label",),
            True,
            ("Albums released", "Releases", "Album catalogue"),
            ("Year", "Album"),
        ),
        ListKind(
            "companies_acquired",
            ("company",),
            ("acquired_by",),
            True,
            ("Companies acquired", "Acquisitions"),
            ("Year", "Company"),
        ),
        ListKind("cast", ("film",), ("cast",), False, ("Cast", "Actors", "Full cast"), ("Actor",)),
        ListKind("references", ("paper",), ("references",), False, ("References", "Cited papers"), ("Year", "Title")),
        ListKind(
            "dependencies",
            ("repository",),
            ("dependencies",),
            False,
            ("Dependencies", "Required packages"),
            ("Package",),
        ),
        ListKind(
            "bridges",
            ("river",),
            ("crosses",),
            True,
            ("Bridges", "Bridges across the river", "Crossings"),
            ("Year", "Bridge"),
        ),
        ListKind(
            "cities",
            ("river",),
            ("on_river",),
            True,
            ("Cities", "Cities on the river", "Cities along its course"),
            ("City",),
        ),
        ListKind(
            "alumni", ("university",), ("studied_at",), True, ("Alumni", "Graduates", "Former students"), ("Name",)
        ),
        ListKind(
            "births",
            ("city",),
            ("born_in",),
            True,
            ("People born here", "Births", "Natives"),
            ("Year of birth", "Name"),
        ),
    )
}
"""Headings stand alone over a list (`- Member (1987)`, without a year `- Member`) or over a table."""

ALIASES: dict[str, tuple[str, ...]] = {
    "person": ("{s} is also known as {o}.", "{s} often signs as {o}."),
    "city": ("{s} was formerly called {o}.", "The former name of {s_mid} is {o}."),
    "company": ("{s} is called {o} for short.", "{s} is also known as {o}."),
}
"""How a page states another name of its subject."""

INCOMPLETE: tuple[str, ...] = ("Selected", "Notable")
"""First word of the heading of a list that is not complete."""

TYPE_NOUNS: dict[str, str] = {
    "city": "city", "country": "country", "river": "river", "lake": "lake", "university": "university",
    "company": "company", "film": "film", "novel": "novel", "album": "album", "band": "band", "museum": "museum",
    "bridge": "bridge", "prize": "prize", "paper": "paper", "repository": "project",
}  # fmt: skip
"""`The film`, `the film's` in running prose; people take `he` or `she`, and anything else may also take `it`."""

OCCUPATIONS: tuple[str, ...] = (
    "architect", "novelist", "film director", "actor", "musician", "chemist", "physicist", "painter", "engineer",
    "economist", "computer scientist", "producer", "politician", "biologist", "entrepreneur",
)  # fmt: skip

PROGRAMMING_LANGUAGES: tuple[str, ...] = ("Python", "Rust", "Go", "Haskell", "Julia", "Kotlin", "OCaml", "Zig")

LICENCES: tuple[str, ...] = ("MIT", "Apache-2.0", "BSD-3-Clause", "MPL-2.0", "GPL-3.0", "ISC")

FIELDS: tuple[str, ...] = (
    "machine learning", "organic chemistry", "fluid dynamics", "computer vision", "information retrieval",
    "network theory", "molecular biology", "macroeconomics", "distributed systems", "solid-state physics",
)  # fmt: skip
