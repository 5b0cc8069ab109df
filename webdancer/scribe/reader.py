"""Reads a page of the embedded web's English: text → facts and lists.

What a page says is found sentence by sentence, infobox row by infobox row and list by list. The title says whom a pronoun
means; what kind of thing the page is about is inferred from what is said of it. A sentence that no pattern fits is not
guessed at. Every fact keeps the line that states it.
"""

import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from webdancer.scribe.logical import Name
from webdancer.scribe.mentions import base_name, find_date, find_number, read_mention, split_sentences
from webdancer.scribe.reader_labels import HEADINGS, INCOMPLETE, LABELS
from webdancer.scribe.reader_patterns import match_alias, match_sentence
from webdancer.scribe.relations import LISTS, RELATIONS, word_set


class Fact(NamedTuple):
    """One statement of a page."""

    subject: Name
    relation: str
    value: Name
    """A thing, or a literal in its canonical spelling."""
    line: str
    """The sentence or row, word for word."""
    year: int | None = None
    """The year that it is stated for, where the line gives one."""


class Member(NamedTuple):
    """An entry of a list."""

    name: Name
    year: int | None


class Listing(NamedTuple):
    """A list of the page."""

    kind: str
    holder: Name
    members: tuple[Member, ...]
    heading: str
    lines: tuple[str, ...]
    """The rows under the heading, word for word, the table's header among them."""
    member_lines: tuple[str, ...]
    """The row of each member."""
    complete: bool


class Reading(NamedTuple):
    """What a page says."""

    title: Name
    type: str | None
    """The kind of thing that the page is about, if that is clear."""
    facts: tuple[Fact, ...]
    lists: tuple[Listing, ...]
    alias_lines: tuple[tuple[str, str], ...] = ()
    """Other names of the thing, each with the line that states it."""
    namesakes: tuple[Name, ...] = ()
    """On a page that only parts people of one name: who they are."""
    listed: frozenset[str] = frozenset()
    """What stands in any list of the page, also in lists of an unknown kind."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the thing."""
        return tuple(alias for alias, _ in self.alias_lines)


class _Raw(NamedTuple):
    """A statement whose relation is not settled yet."""

    subject: Name
    relations: tuple[str, ...]
    value: Name
    line: str
    year: int | None


@lru_cache(maxsize=4096)
def read_page(title: str, text: str) -> Reading:
    """What the page says. Never raises, whatever the text."""
    about = base_name(title)
    raw: list[_Raw] = []
    sections: list[_Section] = [_Section("", [])]
    aliases: list[tuple[str, str]] = []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("#"):
            sections.append(_Section(line, []))
        elif line.startswith("- ") or " | " in line:
            sections[-1].rows.append(line)
        elif line:
            _read_prose(line, about, raw, aliases)
    tables: list[tuple[str, _Section]] = []
    for section in sections:
        kind = HEADINGS.get(_plain_heading(section.heading))
        if kind:
            tables.append((kind, section))
        else:
            for row in section.rows:
                _read_row(row, about, raw, aliases)
    kinds = _infer_type(raw, tables, about, f"{title}\n{text}")
    facts = tuple(fact for item in raw for fact in _settle(item, about, kinds))
    lists = tuple(_read_list(kind, about, section) for kind, section in tables)
    lists = tuple(item for item in lists if kinds is None or LISTS[item.kind].holder == kinds)
    known = [section for _, section in tables]
    namesakes = () if facts or lists else tuple(_read_namesakes(sections, about))
    entries = (
        read_entry(row) for section in sections for row in section.rows if row.startswith("- ") or section in known
    )
    listed = frozenset(entry.name.text for entry in entries if entry is not None)
    return Reading(about, kinds, facts, lists, tuple(dict.fromkeys(aliases)), namesakes, listed)


class _Section(NamedTuple):
    heading: str
    rows: list[str]


_ALIAS_LABELS = word_set("also_known_as other_names other_name former_name formerly alias aliases short_name signs_as")


def _read_prose(line: str, about: Name, raw: list[_Raw], aliases: list[tuple[str, str]]) -> None:
    for sentence in split_sentences(line):
        if alias := match_alias(sentence):
            subject = about if alias[0] is None else read_mention(alias[0])
            if subject is not None and subject.text == about.text:
                aliases.append((alias[1], sentence))
            continue
        for found in match_sentence(sentence):
            subject = about if found.subject is None else read_mention(found.subject)
            if subject is None:
                continue
            if subject.text == about.text and not subject.hint:
                subject = about
            raw.append(_Raw(subject, found.relations, found.value, sentence, found.year))


def _read_row(row: str, about: Name, raw: list[_Raw], aliases: list[tuple[str, str]]) -> None:
    """An infobox row `Label | value`."""
    label, bar, value = row.partition(" | ")
    relations = LABELS.get(label.strip().lower())
    if label.strip().lower().replace(" ", "_") in _ALIAS_LABELS:
        aliases.append((value.strip(), row))
    if not bar or relations is None or " | " in value:
        return
    for relation in relations:
        read = read_value(relation, value)
        if read is not None:
            year = re.search(r"\((?:[^()]*\D)?(\d{4})\)", value)
            candidates = tuple(r for r in relations if RELATIONS[r].range == RELATIONS[relation].range)
            raw.append(_Raw(about, candidates, read, row, int(year[1]) if year else None))
            return


def read_value(relation: str, text: str) -> Name | None:
    """The value in a table cell, in its canonical spelling; None if it cannot be one of that relation."""
    kinds = RELATIONS[relation].range
    text = text.strip()
    if "date" in kinds:
        date = find_date(text)
        return Name(date) if date else None
    if "year" in kinds:
        match = re.fullmatch(r"(\d{3,4})(?:[^\d,].*)?", text)
        return Name(match[1]) if match else None
    if "number" in kinds:
        number = find_number(text, relation)
        return Name(number) if number else None
    bare = re.sub(r"\s*\((?:since|as of|from|until|in)?\s*\d{4}\)$", "", text)
    if "text" in kinds:
        return Name(bare) if bare and len(bare.split()) <= 4 and not bare[0].isdigit() else None
    return None if re.fullmatch(r"[\d\W]+", bare) or find_date(bare) else read_mention(bare, loose=True)


def _infer_type(raw: list[_Raw], tables: list[tuple[str, _Section]], about: Name, text: str) -> str | None:
    """The one kind of thing that most of what is said here fits; of several, the one that the text has a word of."""
    votes: Counter[str] = Counter()
    for item in raw:
        if item.subject == about:
            votes.update(set().union(*(RELATIONS[r].domain for r in item.relations)))
    votes.update(LISTS[kind].holder for kind, _ in tables)
    if not votes:
        return None
    most = max(votes.values())
    best = sorted(kind for kind, num in votes.items() if num == most)
    if len(best) > 1:
        best = [kind for kind in best if re.search(KIND_WORDS.get(kind, rf"\b{kind}\b"), text, re.IGNORECASE)] or best
    return best[0] if len(best) == 1 else None


def _settle(item: _Raw, about: Name, kind: str | None) -> list[Fact]:
    """The facts that a statement comes to, now that the page's kind is known; several where it stays open."""
    relations = item.relations
    if item.subject == about and kind is not None:
        relations = tuple(r for r in relations if kind in RELATIONS[r].domain)
    return [Fact(item.subject, r, item.value, item.line, item.year) for r in relations]


def _plain_heading(heading: str) -> str:
    """A heading in lower case without its marks; an incomplete list's first word is dropped."""
    words = heading.lstrip("#").strip().lower().split()
    return " ".join(words[1:] if words and words[0] in INCOMPLETE else words)


def _read_list(kind: str, about: Name, section: _Section) -> Listing:
    read = [(read_entry(row), row) for row in section.rows]
    members = [(member, row) for member, row in read if member is not None]
    words = section.heading.lstrip("#").strip().lower().split()
    return Listing(
        kind,
        about,
        tuple(member for member, _ in members),
        section.heading,
        tuple(section.rows),
        tuple(row for _, row in members),
        complete=words[0] not in INCOMPLETE,
    )


KIND_WORDS = {"museum": r"\b(?:museum|gallery)\b", "bridge": r"\b(?:bridge|viaduct|footbridge)\b"}
"""What a text calls a kind of thing, where it has more words than one."""
_HEADER_CELLS = word_set("year film novel work album title name musician laureate company actor package bridge city")


def read_entry(row: str) -> Member | None:
    """The member that a list item or a table row gives; None for a table's header."""
    if row.startswith("- "):
        match = re.fullmatch(r"- (.+?)(?: \((?:[^()]*\D)?(\d{4})\))?", row)
        if match is None:
            return None
        name = read_mention(match[1], loose=True)
        return Member(name, int(match[2]) if match[2] else None) if name else None
    cells = [cell.strip() for cell in row.split(" | ")]
    if all(cell.lower() in _HEADER_CELLS or cell.lower().startswith("year of") for cell in cells if cell):
        return None
    years = [cell for cell in cells if re.fullmatch(r"\d{4}", cell)]
    names = [cell for cell in cells if cell and cell not in years]
    name = read_mention(names[0], loose=True) if names else None
    return Member(name, int(years[0]) if years else None) if name else None


def _read_namesakes(sections: list[_Section], about: Name) -> list[Name]:
    names = []
    for section in sections:
        for row in section.rows:
            match = re.match(r"- (.+?)(?:,| [–-] |$)", row)
            name = read_mention(match[1], loose=True) if match else None
            if name and name.text == about.text and name.hint:
                names.append(name)
    return names
