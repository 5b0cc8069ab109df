"""How names, dates and numbers are written in a text, and their one canonical spelling."""

import re
from functools import lru_cache

from webdancer.scribe.logical import Name
from webdancer.scribe.question import parse_name
from webdancer.scribe.relations import ENTITY_TYPES

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_MONTH = "|".join(MONTHS)
DATE = rf"(?:\d{{1,2}} (?:{_MONTH}) \d{{4}}|(?:{_MONTH}) \d{{1,2}}, \d{{4}}|\d{{4}}-\d{{2}}-\d{{2}})"
_DATES = re.compile(
    rf"\b(?:(?P<d1>\d{{1,2}}) (?P<m1>{_MONTH}) (?P<y1>\d{{4}})|(?P<m2>{_MONTH}) (?P<d2>\d{{1,2}}), (?P<y2>\d{{4}})"
    r"|(?P<y3>\d{4})-(?P<m3>\d{2})-(?P<d3>\d{2}))\b"
)
NUMBER = r"\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?"
_TITLED = re.compile(r"^(.*\S) \(([a-z][a-z ]*)\)$")
_TYPE_NOUNS = ENTITY_TYPES | {"project", "label", "publisher"}
_UNITS = {
    "river_length": "km",
    "lake_area": "km²",
    "lake_depth": "m",
    "bridge_length": "m",
    "runtime": "minutes",
}


def find_date(text: str) -> str | None:
    """The first date in `text`, as `3 March 1954`."""
    match = _DATES.search(text)
    if match is None:
        return None
    groups = match.groupdict()
    if groups["y1"]:
        return f"{int(groups['d1'])} {groups['m1']} {groups['y1']}"
    if groups["y2"]:
        return f"{int(groups['d2'])} {groups['m2']} {groups['y2']}"
    month = int(groups["m3"])
    return f"{int(groups['d3'])} {MONTHS[month - 1]} {groups['y3']}" if 1 <= month <= 12 else None


def find_number(text: str, relation: str) -> str | None:
    """The number that a cell opens with, in digits; None where its unit is not that of the relation."""
    match = re.match(rf"({NUMBER})\s*([^\s\d(]*)", text)
    if match is None:
        return None
    unit = _UNITS.get(relation, "")
    if match[2] != unit and not (unit == "minutes" and match[2] in {"min", "minutes"}):
        return None
    return match[1].replace(",", "")


@lru_cache(maxsize=20_000)
def base_name(title: str) -> Name:
    """The thing that a page with this title is about; the word in parentheses tells people of one name apart."""
    title = " ".join(title.split()).strip('“”"')
    if match := _TITLED.match(title):
        return Name(match[1], match[2])
    return Name(title)


@lru_cache(maxsize=20_000)
def read_mention(text: str, *, loose: bool = False) -> Name | None:
    """The thing that is meant where it is mentioned; None if `text` is no mention of a single thing.

    Args:
        text: a part of a sentence, or a whole cell of a table.
        loose: whether any text will do that is not clearly something else, as in a cell that holds nothing but a name.
    """
    text = text.strip()
    if text.startswith(("“", '"')) and text.endswith(("”", '"')) and len(text) > 2:
        inner = text[1:-1].strip()
        return Name(inner) if inner and "“" not in inner else None
    if match := _TITLED.match(text):
        inner_name = parse_name(match[1])
        return Name(inner_name.text, match[2]) if inner_name else None
    name = parse_name(text)
    if name is not None:
        return Name(name.text) if name.hint in _TYPE_NOUNS else name
    if loose and 0 < len(text) <= 120 and not text.endswith((".", ":")):
        return Name(text.strip('“”"'))
    return None


_BREAK = re.compile(r"(?<=[.!?”])\s+(?=[A-Z“À-ÖØ-Þ0-9]|[a-z][a-z0-9]*-[a-z])")
_INITIAL = re.compile(r"(?:^|[\s(])(?:[A-ZÀ-ÖØ-Þ]|[A-ZÀ-ÖØ-Þ][a-z]|etc|vs)\.$")


def split_sentences(line: str) -> list[str]:
    """The sentences of a paragraph. The full stop of an initial ends none."""
    sentences: list[str] = []
    start = 0
    for gap in _BREAK.finditer(line):
        if not _INITIAL.search(line[max(start, gap.start() - 8) : gap.start()]):
            sentences.append(line[start : gap.start()])
            start = gap.end()
    sentences.append(line[start:])
    return [s for s in sentences if s]


_WORDS = re.compile(r"\w+")


def words_of(text: str) -> frozenset[str]:
    """The words of a text in lower case, without articles."""
    return frozenset(_WORDS.findall(text.lower())) - {"a", "an", "the"}
