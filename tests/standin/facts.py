"""What a page tells for a question whose target is the page's own subject: the answer, and the lines that state it."""

import re
from collections.abc import Callable, Iterator

from .questions import Ask, Named, Noun, Relation, Side
from .reading import Definition, Found, Mention, Reading, defaults

_NEW = re.compile(r"New in version (\d+\.\d+(?:\.\d+)?)\b")
_REMOVED = re.compile(r"will be removed in version (\d+\.\d+)\b")
_SOURCE = re.compile(r"Source code: (Lib/[\w./]+\w)")
_KINDS = {"functions": "function", "classes": "class", "exceptions": "exception", "constants": "constant"}
_MIN_COUNT = 2
_MIN_ENTRIES = 3
_MAX_HEADING = 60


def find(reading: Reading, ask: Ask) -> Found | None:
    """The answer to `ask`, whose target is what the page is about; None where the page does not tell it."""
    return _FINDERS[ask.relation](reading, ask.details)


def all_asks(reading: Reading) -> Iterator[Ask]:
    """Every question of one relation that the page answers about its subject, in a fixed order."""
    subject = Named(reading.name, reading.noun)
    for relation, details in _possible(reading):
        ask = Ask(relation, subject, details)
        if find(reading, ask) is not None:
            yield ask


def _possible(reading: Reading) -> Iterator[tuple[Relation, tuple[str, ...]]]:
    for relation in (
        Relation.ADDED,
        Relation.REMOVED,
        Relation.SOURCE,
        Relation.RFC,
        Relation.PEP,
        Relation.SUBJECT,
        Relation.LISTED,
    ):
        yield relation, ()
    for kind in _KINDS:
        yield Relation.COUNT, (kind,)
    definitions = reading.definitions
    for definition in definitions:
        if definition.kind != "constant":
            yield Relation.MEMBER_ADDED, (definition.name,)
        for parameter in defaults(definition):
            yield Relation.DEFAULT, (parameter, definition.name)
    for owner in dict.fromkeys(d.name.rpartition(".")[0] for d in definitions if d.kind == "method"):
        yield Relation.METHODS, (owner,)
    for heading, _ in reading.sections():
        if len(heading) <= _MAX_HEADING and '"' not in heading:
            yield Relation.ENTRIES, (heading,)
            yield Relation.ROWS, (heading,)


def _added(reading: Reading, _: tuple[str, ...]) -> Found | None:
    """The module's own version note stands before its first definition and alone on its line."""
    first = next((d.at for d in reading.definitions), 5)
    for line in reading.lines[1 : min(first, 5)]:
        if (match := _NEW.match(line)) and line == f"{match[0]}.":
            return Found(match[1], (reading.lines[0], line))
    return None


def _removed(reading: Reading, _: tuple[str, ...]) -> Found | None:
    for line in reading.lines[:5]:
        if (match := _REMOVED.search(line)) and f"The {reading.name} module" in line:
            return Found(match[1], (line,))
    return None


def _source(reading: Reading, _: tuple[str, ...]) -> Found | None:
    found = [(match[1], line) for line in reading.lines if (match := _SOURCE.fullmatch(line))]
    return Found(found[0][0], (found[0][1],)) if len(found) == 1 else None


def _only(noun: str) -> Callable[[Reading, tuple[str, ...]], Found | None]:
    """The standard of a kind of which the page names exactly one."""

    def finder(reading: Reading, _: tuple[str, ...]) -> Found | None:
        names = reading.standards(noun)
        return Found(next(iter(names)), tuple(names.values())) if len(names) == 1 else None

    return finder


def _subject(reading: Reading, _: tuple[str, ...]) -> Found | None:
    head = reading.line_with(reading.blurb) if reading.blurb else None
    return Found(reading.blurb, (head,)) if head else None


def _listed(reading: Reading, _: tuple[str, ...]) -> Found | None:
    entries = reading.entries()
    if reading.noun != "chapter" or len(entries) < _MIN_ENTRIES:
        return None
    return Found(str(len(entries)), tuple(entries.values()))


def _count(reading: Reading, details: tuple[str, ...]) -> Found | None:
    return _number_of([d for d in reading.definitions if d.kind == _KINDS[details[0]]], reading, _MIN_COUNT)


def _methods(reading: Reading, details: tuple[str, ...]) -> Found | None:
    methods = [d for d in reading.definitions if d.kind == "method" and d.name.rpartition(".")[0] == details[0]]
    return _number_of(methods, reading, _MIN_ENTRIES)


def _number_of(definitions: list[Definition], reading: Reading, least: int) -> Found | None:
    names = {d.name for d in definitions}
    return Found(str(len(names)), tuple(reading.lines[d.at] for d in definitions)) if len(names) >= least else None


def _member_added(reading: Reading, details: tuple[str, ...]) -> Found | None:
    """The version note between a definition and the next one; none where several definitions share it."""
    definitions = reading.definitions
    ends = [*(d.at for d in definitions[1:]), len(reading.lines)][: len(definitions)]
    for definition, end in zip(definitions, ends, strict=True):
        if definition.name != details[0]:
            continue
        for line in reading.lines[definition.at + 1 : end]:
            if line.startswith("#"):
                break
            if (match := _NEW.match(line)) and line == f"{match[0]}.":
                return Found(match[1], (reading.lines[definition.at], line))
    return None


def _default(reading: Reading, details: tuple[str, ...]) -> Found | None:
    same = [d for d in reading.definitions if d.name == details[1]]
    if len(same) != 1 or details[0] not in (values := defaults(same[0])):
        return None
    return Found(values[details[0]], (reading.lines[same[0].at],))


def _rows_of(marker: Callable[[str], bool], head: int) -> Callable[[Reading, tuple[str, ...]], Found | None]:
    """The lines of one kind under a heading that occurs once, `head` of them not counted."""

    def finder(reading: Reading, details: tuple[str, ...]) -> Found | None:
        under = [lines for heading, lines in reading.sections() if heading == details[0]]
        if len(under) != 1:
            return None
        rows = [line for line in under[0] if marker(line)]
        if len(rows) - head < _MIN_ENTRIES:
            return None
        return Found(str(len(rows) - head), (f"## {details[0]}", *rows))

    return finder


def _named(reading: Reading, details: tuple[str, ...]) -> Found | None:
    noun: Noun = "module" if details[0] == "module" else "chapter"
    side: Side = "after" if details[1] == "after" else "before"
    name, line = reading.named_beside(Mention(side, details[2]), noun), reading.line_with(details[2])
    return Found(name, (line,)) if name and line else None


def _both(reading: Reading, details: tuple[str, ...]) -> Found | None:
    """One side of the question: the names that this page lists, comma-separated."""
    names = reading.listed() if details[0] == "module" else reading.standards(details[0])
    return Found(", ".join(names), tuple(dict.fromkeys(names.values()))) if names else None


_FINDERS: dict[Relation, Callable[[Reading, tuple[str, ...]], Found | None]] = {
    Relation.ADDED: _added,
    Relation.REMOVED: _removed,
    Relation.SOURCE: _source,
    Relation.RFC: _only("RFC"),
    Relation.PEP: _only("PEP"),
    Relation.SUBJECT: _subject,
    Relation.LISTED: _listed,
    Relation.COUNT: _count,
    Relation.METHODS: _methods,
    Relation.MEMBER_ADDED: _member_added,
    Relation.DEFAULT: _default,
    Relation.ENTRIES: _rows_of(lambda line: line.startswith("- "), 0),
    Relation.ROWS: _rows_of(lambda line: " | " in line, 1),
    Relation.NAMED: _named,
    Relation.BOTH: _both,
}
