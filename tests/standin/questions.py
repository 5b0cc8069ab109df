"""The shapes of question that the stand-in writes and understands, as data, rendered and parsed.

A question asks for one relation of one target. A target is named ("the hmac module", 'the chapter "Data Types"') or
described by what stands beside its name in the documentation of another target, which may be described in its turn:

    In which version of Python was the module named right after "kept sorted (using the" in the documentation of the
    queue module added?
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias, cast

Noun: TypeAlias = Literal["module", "chapter"]
Side: TypeAlias = Literal["after", "before"]


class Relation(StrEnum):
    """What a question asks of its target."""

    ADDED = "In which version of Python was {T} added?"
    REMOVED = "In which version of Python will {T} be removed?"
    SOURCE = "In which file is the source code of {T}?"
    RFC = "Which RFC does the documentation of {T} refer to?"
    PEP = "Which PEP does the documentation of {T} refer to?"
    SUBJECT = "What does the title of its documentation say of {T}?"
    MEMBER_ADDED = "In which version of Python was {0} added to {T}?"
    DEFAULT = "What is the default value of the parameter {0} of {1} in {T}?"
    COUNT = "How many {0} does {T} define?"
    METHODS = "How many methods of {0} objects are described in the documentation of {T}?"
    LISTED = "How many modules does {T} list?"
    ENTRIES = 'How many entries are listed under "{0}" in the documentation of {T}?'
    ROWS = 'How many rows does the table under "{0}" have below its head in the documentation of {T}?'
    NAMED = 'Which {0} is named right {1} "{2}" in the documentation of {T}?'
    BOTH = "Which {0} is listed both in the documentation of {T} and in the documentation of {U}?"


COUNTING = (Relation.COUNT, Relation.METHODS, Relation.LISTED, Relation.ENTRIES, Relation.ROWS)
VERSIONS = (Relation.ADDED, Relation.REMOVED, Relation.MEMBER_ADDED)


@dataclass(frozen=True, slots=True)
class Named:
    """A target by its name: a module's name, or a chapter's title."""

    name: str
    noun: Noun

    def __str__(self) -> str:
        return f"the {self.name} module" if self.noun == "module" else f'the chapter "{self.name}"'


@dataclass(frozen=True, slots=True)
class Beside:
    """A target by what stands beside its name in the documentation of another."""

    noun: Noun
    side: Side
    words: str
    of: "Target"

    def __str__(self) -> str:
        return f'the {self.noun} named right {self.side} "{self.words}" in the documentation of {self.of}'


Target: TypeAlias = Named | Beside


@dataclass(frozen=True, slots=True)
class Ask:
    """A question: `other` is the second target of BOTH, `details` fill the numbered slots."""

    relation: Relation
    target: Target
    details: tuple[str, ...] = ()
    other: Target | None = None

    def __str__(self) -> str:
        return self.relation.value.format(*self.details, T=self.target, U=self.other)


def named_ask(noun: Noun, side: Side, words: str, of: Target) -> Ask:
    """The question after the name that stands beside some words."""
    return Ask(Relation.NAMED, of, (noun, side, words))


def parse_question(text: str) -> Ask | None:
    """The question that `text` is, or None where it has none of the shapes."""
    text = " ".join(text.split())
    for relation, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(text):
            groups = match.groupdict()
            target, other = parse_target(groups["T"]), groups.get("U")
            second = parse_target(other) if other else None
            if target is not None and (other is None or second is not None):
                details = tuple(groups[key] for key in sorted(groups) if key.startswith("d"))
                return Ask(relation, target, details, second)
    return None


def parse_target(text: str) -> Target | None:
    """The target that a noun phrase stands for, or None."""
    if match := _NAMED_MODULE.fullmatch(text):
        return Named(match[1], "module")
    if match := _NAMED_CHAPTER.fullmatch(text):
        return Named(match[1], "chapter")
    if match := _BESIDE.fullmatch(text):
        of = parse_target(match[4])
        return None if of is None else Beside(cast(Noun, match[1]), cast(Side, match[2]), match[3], of)
    return None


def innermost(target: Target) -> Named:
    """The name that the target's description begins from."""
    while isinstance(target, Beside):
        target = target.of
    return target


_NAMED_MODULE = re.compile(r"the ([\w.]+) module")
_NAMED_CHAPTER = re.compile(r'the chapter "([^"]+)"')
_BESIDE = re.compile(r'the (module|chapter) named right (after|before) "([^"]+)" in the documentation of (the .+)')
_SLOT = re.compile(r'(")?\\{(\w)\\}"?')


def _pattern(relation: Relation) -> re.Pattern[str]:
    """A shape as a regular expression: slots in quotation marks hold anything but these, bare ones no space."""

    def group(slot: re.Match[str]) -> str:
        if slot[2] in "TU":
            return f"(?P<{slot[2]}>the .+)"
        return f'"(?P<d{slot[2]}>[^"]+)"' if slot[1] else f"(?P<d{slot[2]}>\\S+)"

    return re.compile(_SLOT.sub(group, re.escape(relation.value)))


_PATTERNS = {relation: _pattern(relation) for relation in Relation}
