"""Turns the patterns of `reader_sentences.py` into regular expressions and tries them on a sentence.

For speed each pattern is filed under its rarest word; only the patterns filed under a word of the sentence are tried, those
with the most words of their own first. The first that fits is the sentence's reading.
"""

import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from webdancer.scribe.logical import Name
from webdancer.scribe.mentions import DATE, NUMBER, find_date, read_mention
from webdancer.scribe.reader_sentences import NO_OCCUPATIONS, SENTENCES
from webdancer.scribe.relations import RELATIONS, word_set

_KIND_NOUNS = (
    "city|country|river|lake|university|company|film|novel|album|band|museum|bridge|prize|paper|project|repository|label"
    "|author|architect|novelist|director|institute"
)
_PRONOUN = re.compile(rf"(?:[Ss]he|[Hh]e|[Ii]t|[Tt]hey|[Tt]he (?:{_KIND_NOUNS}))")
_POSSESSIVE = re.compile(rf"(?:[Hh]er|[Hh]is|[Ii]ts|[Tt]heir|[Tt]he (?:{_KIND_NOUNS})['’]s)")
_TOKEN = re.compile(r"\[([\w|]+)\]|\{year\}|\b([SP])\b|\b(IS|WORKS|AN)\b|_")
_EITHER = {"IS": "(?:is|was)", "WORKS": "(?:works|worked)", "AN": "an?"}
_WORD = re.compile(r"[A-Za-z]+")
_LOWER_WORDS = re.compile(r"[a-zA-Z-]+(?: [a-z-]+){0,2}")
_SMALL_WORDS = word_set("of in on at by to from for with that which who the a an and")


MAX_SENTENCE_CHARS = 500
"""Longer ones are not tried: no pattern is that long, and trying them would take long."""


class Found(NamedTuple):
    """One fact of a sentence. `subject` is None for a pronoun, else the words of the sentence."""

    subject: str | None
    relations: tuple[str, ...]
    value: Name
    year: int | None


class _Pattern(NamedTuple):
    regex: re.Pattern[str]
    slots: tuple[tuple[str, ...], ...]
    """The relations of each value, in order."""
    has_subject: bool
    weight: int
    """Number of letters of its own."""


@lru_cache(maxsize=20_000)
def match_sentence(sentence: str) -> tuple[Found, ...]:
    """The facts of a sentence; none if no pattern fits."""
    if len(sentence) > MAX_SENTENCE_CHARS:
        return ()
    tried: list[_Pattern] = []
    for word in dict.fromkeys(_WORD.findall(sentence)):
        tried += _INDEX.get(word.lower(), ())
    tried.sort(key=_by_weight)
    for pattern in tried:
        match = pattern.regex.fullmatch(sentence)
        if match and (found := _read(pattern, match)):
            return found
    return ()


_ALIASES = tuple(
    re.compile(shape.replace("S", "(?P<s>.+?)").replace("X", r"(?P<x>[^,;]+?)"))
    for shape in (
        r"S (?:is|was) also (?:known|called|written) as X\.",
        r"S (?:is|was) also called X\.",
        r"S often signs as X\.",
        r"S (?:is|was) formerly (?:called|known as) X\.",
        r"The former name of S is X\.",
        r"S (?:is|was) called X for short\.",
    )
)
_ALIAS_BACKWARDS = re.compile(r"(?P<x>[^,;]+?) is another name of (?P<s>.+?)\.")


def match_alias(sentence: str) -> tuple[str | None, str] | None:
    """(subject, other name) of a sentence that states another name; the subject is None for a pronoun."""
    if len(sentence) > MAX_SENTENCE_CHARS:
        return None
    for regex in (*_ALIASES, _ALIAS_BACKWARDS):
        if match := regex.fullmatch(sentence):
            name = read_mention(match["x"])
            return (None if _PRONOUN.fullmatch(match["s"]) else _lowered(match["s"]), name.text) if name else None
    return None


def _lowered(subject: str) -> str:
    """A subject from the start of a sentence, its article in small letters."""
    return re.sub(r"^(?:[Tt]he|[Tt]his) (?=(?:[a-z]+ )*[A-ZÀ-ÖØ-Þ“])", "the ", subject)


def _by_weight(pattern: _Pattern) -> int:
    return -pattern.weight


def _read(pattern: _Pattern, match: re.Match[str]) -> tuple[Found, ...]:
    """The facts of a sentence that has the pattern's words; none if a value is not of its kind."""
    groups = match.groupdict()
    subject: str | None = None
    if "s" in groups:
        if not _PRONOUN.fullmatch(groups["s"]):
            subject = groups["s"]
    elif "p" in groups and not _POSSESSIVE.fullmatch(groups["p"]):
        subject = re.sub(r"['’]s?$", "", groups["p"])
        if subject == groups["p"]:
            return ()
    if subject is not None:
        subject = _lowered(subject)
        if read_mention(subject) is None:
            return ()
    year = int(groups["year"]) if groups.get("year") else None
    found = []
    for i, relations in enumerate(pattern.slots):
        value = _value(relations[0], groups[f"v{i}"])
        if value is None:
            return ()
        found.append(Found(subject, relations, value, year))
    return tuple(found)


def _value(relation: str, text: str) -> Name | None:
    kinds = RELATIONS[relation].range
    if "year" in kinds:
        return Name(text)
    if "number" in kinds:
        return Name(text.replace(",", ""))
    if "date" in kinds:
        date = find_date(text)
        return Name(date) if date else None
    if "text" in kinds:
        words = text.split()
        if len(words) > 3 or _SMALL_WORDS & set(words):
            return None
        if relation in {"occupation", "field"} and (not _LOWER_WORDS.fullmatch(text) or words[-1] in NO_OCCUPATIONS):
            return None
        return Name(text)
    return read_mention(text[0].lower() + text[1:] if text.startswith("The ") else text) or read_mention(text)


def _compile(line: str) -> tuple[_Pattern, list[str]]:
    """The pattern of a line, and the words that are its own."""
    parts: list[str] = []
    slots: list[tuple[str, ...]] = []
    words: list[str] = []
    last, has_subject = 0, False
    for token in _TOKEN.finditer(line):
        literal = line[last : token.start()]
        parts.append(re.escape(literal))
        words += _WORD.findall(literal)
        last = token.end()
        if token[1]:
            relations = tuple(token[1].split("|"))
            parts.append(f"(?P<v{len(slots)}>{_value_regex(relations[0])})")
            slots.append(relations)
        elif token[2]:
            has_subject = True
            parts.append(f"(?P<{token[2].lower()}>.+?)")
        elif token[3]:
            parts.append(_EITHER[token[3]])
        elif token[0] == "_":
            parts.append(".+")
        else:
            parts.append(r"(?P<year>\d{4})")
    parts.append(re.escape(line[last:]))
    words += _WORD.findall(line[last:])
    regex = "".join(parts)
    pattern = _Pattern(re.compile(regex), tuple(slots), has_subject, sum(map(len, words)))
    return pattern, [word.lower() for word in words]


def _value_regex(relation: str) -> str:
    kinds = RELATIONS[relation].range
    if "year" in kinds:
        return r"\d{3,4}"
    if "number" in kinds:
        return NUMBER
    if "date" in kinds:
        return DATE
    return r"[^\d\s].*?" if relation != "code" else ".+?"


def _build_index() -> dict[str, tuple[_Pattern, ...]]:
    compiled = [_compile(line) for line in SENTENCES.splitlines()]
    frequency = Counter(word for _, words in compiled for word in set(words))
    index: dict[str, tuple[_Pattern, ...]] = {}
    for pattern, words in compiled:
        keys = [min(words, key=lambda word: frequency[word])] if words else ["is", "was"]
        for key in keys:
            index[key] = (*index.get(key, ()), pattern)
    return index


_INDEX = _build_index()
