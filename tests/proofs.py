"""Proofs of questions against the facts file of the embedded web: which answers are right, and which pages are needed.

Only tests use this. A question is proved from its logical form: `answers` gives every right answer (a good question has
one), `single_pages` the pages that state all needed facts alone (a good question has none).
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from webdancer.scribe.logical import Count, Expr, Intersect, ListOf, LogicalForm, Lookup, Name
from webdancer.scribe.question import parse_question
from webdancer.scribe.relations import ENTITY_TYPES, LISTS, RELATIONS


class Statement(NamedTuple):
    """A fact row."""

    subject: str
    relation: str
    object: str | None
    value: str
    year: int | None
    current: bool
    pages: frozenset[str]


@dataclass(frozen=True)
class Entity:
    """An entity row."""

    key: str
    type: str
    name: str
    title: str
    aliases: tuple[str, ...]
    url: str


class Derivation(NamedTuple):
    """One way to an answer: the thing or literal, and the statements that it rests on."""

    key: str | None
    value: str
    needed: tuple[Statement, ...]


class Facts:
    """The fact graph as the facts file gives it."""

    def __init__(self, rows: Iterable[dict]) -> None:  # type: ignore[type-arg]
        self.entities: dict[str, Entity] = {}
        self.by_name: dict[str, list[Entity]] = defaultdict(list)
        self.of_subject: dict[tuple[str, str], list[Statement]] = defaultdict(list)
        self.of_object: dict[tuple[str, str], list[Statement]] = defaultdict(list)
        self.pages: dict[str, dict] = {}  # type: ignore[type-arg]
        for row in rows:
            match row["row"]:
                case "entity":
                    entity = Entity(
                        *(row[k] for k in ("key", "type", "name", "title")), tuple(row["aliases"]), row["url"]
                    )
                    self.entities[entity.key] = entity
                    for name in {entity.name, entity.title, *entity.aliases}:
                        self.by_name[name].append(entity)
                case "fact":
                    statement = Statement(
                        *(row[k] for k in ("subject", "relation", "object", "value", "year", "current")),
                        frozenset(row["pages"]),
                    )
                    self.of_subject[statement.relation, statement.subject].append(statement)
                    if statement.object is not None:
                        self.of_object[statement.relation, statement.object].append(statement)
                case "page":
                    self.pages[row["url"]] = row

    def named(self, name: Name) -> list[Entity]:
        """The entities that a name can mean."""
        found = self.by_name.get(name.text, [])
        if name.hint in ENTITY_TYPES:
            return [e for e in found if e.type == name.hint]
        if name.hint:
            return [e for e in found if e.type == "person" and self._occupation(e) == name.hint]
        return found

    def _occupation(self, person: Entity) -> str:
        return next((s.value for s in self.of_subject["occupation", person.key]), "")

    def derive(self, form: LogicalForm | Expr) -> list[Derivation]:
        """All ways to answers."""
        if isinstance(form, Name):
            return [Derivation(e.key, e.name, ()) for e in self.named(form)]
        if isinstance(form, Lookup):
            return [
                Derivation(s.object, s.value, (*inner.needed, s))
                for inner in self.derive(form.of)
                for relation in RELATIONS[form.relation].covers
                for s in self.of_subject.get((relation, inner.key or ""), ())
                if s.current
            ]
        if isinstance(form, Count):
            return [
                Derivation(None, str(len(kept)), (*needed, *(s for _, s in kept)))
                for needed, members in self.lists(form.items)
                for kept in [[m for m in members if self._in_years(m, form)]]
            ]
        found = []
        for (one, left), (other, right) in product(self.lists(form.left), self.lists(form.right)):
            for (a, s), (b, t) in product(left, right):
                if a == b:
                    found.append(Derivation(a, self.entities[a].name, (*one, *other, s, t)))
        return [d for d in found if d.key and self.entities[d.key].type == form.member]

    def lists(self, items: ListOf) -> list[tuple[tuple[Statement, ...], list[tuple[str, Statement]]]]:
        """For every holder that is meant: what names it, and its members with the statements that make them members."""
        kind = LISTS[items.kind]
        return [
            (
                inner.needed,
                [(s.object or "", s) for r in kind.forward for s in self.of_subject.get((r, inner.key or ""), ())]
                + [(s.subject, s) for r in kind.inverse for s in self.of_object.get((r, inner.key or ""), ())],
            )
            for inner in self.derive(items.of)
        ]

    def _in_years(self, member: tuple[str, Statement], form: Count) -> bool:
        if form.first is None and form.last is None:
            return True
        year = self._year(member, form.items.kind)
        return year is not None and (form.first or 0) <= year <= (form.last or 9999)

    def _year(self, member: tuple[str, Statement], kind: str) -> int | None:
        """The year that counts: of an award or acquisition the fact's own, of a work that of its appearance."""
        key, statement = member
        if statement.year is not None:
            return statement.year
        if kind == "natives":
            return int(self.of_subject["birth_date", key][0].value[-4:])
        for relation in ("film_year", "novel_year", "album_year", "museum_opened", "bridge_opened", "submitted"):
            for s in self.of_subject.get((relation, key), ()):
                return int(s.value[-4:])
        return None


def load_facts(path: Path) -> Facts:
    """Read a facts file."""
    with path.open(encoding="utf-8") as file:
        return Facts(json.loads(line) for line in file)


def answers(facts: Facts, form: LogicalForm) -> set[str]:
    """All right answers to a form."""
    return {d.value for d in facts.derive(form)}


def single_pages(facts: Facts, form: LogicalForm) -> set[str]:
    """The pages that state everything that the answer rests on."""
    found: set[str] = set()
    for derivation in facts.derive(form):
        pages = [s.pages for s in derivation.needed]
        if pages:
            found |= frozenset.intersection(*pages)
    return found


def faults_of_question(facts: Facts, question: str, answer: str, *, needs_several: bool = True) -> list[str]:
    """What is wrong with a question and its answer; empty for a good one."""
    form = parse_question(question)
    if form is None:
        return ["not understood"]
    found = answers(facts, form)
    faults = []
    if answer not in found:
        faults.append(f"wrong answer {answer!r}, right: {sorted(found)[:3]}")
    elif len(found) > 1:
        faults.append(f"several answers: {sorted(found)[:4]}")
    if needs_several and (pages := single_pages(facts, form)):
        faults.append(f"one page tells it all: {min(pages)}")
    return faults


__all__ = ["Facts", "Intersect", "answers", "faults_of_question", "load_facts", "single_pages"]
