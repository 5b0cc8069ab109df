"""Guesses: an answer of the right kind where the right one could not be found out."""

import re
from collections.abc import Sequence
from hashlib import sha256

from webdancer.scribe.knowledge import Knowledge
from webdancer.scribe.logical import Count, Intersect, LogicalForm, Lookup, Name, names_in
from webdancer.scribe.mentions import DATE, base_name, find_date
from webdancer.scribe.observations import Hit
from webdancer.scribe.question import parse_name
from webdancer.scribe.relations import RELATIONS

_WORDS_TO_VALUES = {
    "text": ("English", "Python", "MIT"),
    "date": ("1 January 1950",),
    "year": ("1950", "1970", "1985"),
    "number": ("100", "12", "250"),
}
_QUESTION_WORDS = (
    ("number", re.compile(r"^(?:in )?how (?:many|much|long|deep|large|old)\b", re.IGNORECASE)),
    ("year", re.compile(r"\b(?:which|what) year\b", re.IGNORECASE)),
    ("date", re.compile(r"^(?:when|on which da)", re.IGNORECASE)),
)


def value_kind(form: LogicalForm | None, question: str) -> str:
    """What kind of answer is asked for: number, year, date, text or a kind of thing ("thing" if that is unknown)."""
    if isinstance(form, Count):
        return "number"
    if isinstance(form, Intersect):
        return form.member
    if isinstance(form, Lookup):
        return min(RELATIONS[form.relation].range)
    return next((kind for kind, words in _QUESTION_WORDS if words.search(question)), "thing")


def guess_answer(form: LogicalForm | None, knowledge: Knowledge, hits: Sequence[Hit], question: str) -> str:
    """The best answer of the right kind that what was seen allows; never empty, the same for the same input."""
    kind = value_kind(form, question)
    text = "\n".join(hit.snippet for hit in hits)
    if kind == "date":
        date = find_date(text)
        return date or _WORDS_TO_VALUES["date"][0]
    if kind in ("year", "number"):
        pattern = r"\b(?:1[0-9]|20)\d\d\b" if kind == "year" else r"\b\d{1,3}\b"
        found = re.findall(pattern, re.sub(DATE, "", text))
        return found[0] if found else _pick(_WORDS_TO_VALUES[kind], question)
    if kind == "text":
        return _pick(_WORDS_TO_VALUES["text"], question)
    known = knowledge.things(kind)
    named = {name.text for name in names_in(form)} if form else set()
    likely_first = sorted(hits, key=lambda hit: not re.search(rf"\b{kind}\b", hit.snippet))
    titles = [base_name(hit.title) for hit in likely_first if parse_name(base_name(hit.title).text)]
    likely = [name for name in (*known, *titles) if name.text not in named and name.text not in question]
    return likely[0].text if likely else "unknown"


def other_of_kind(answer: str, form: LogicalForm | None, knowledge: Knowledge, hits: Sequence[Hit], seed: int) -> str:
    """Another value of the answer's kind: a wrong answer that looks like a right one."""
    if re.fullmatch(r"\d+", answer):
        shift = 1 + seed % 3
        return str(int(answer) + shift)
    if find_date(answer):
        return re.sub(r"\d{4}", lambda m: str(int(m[0]) + 1 + seed % 5), answer)
    kind = value_kind(form, "")
    named = {name.text for name in names_in(form)} if form else set()
    others: list[Name] = [*knowledge.things(kind), *(base_name(hit.title) for hit in hits)]
    likely = [n.text for n in dict.fromkeys(others) if n.text != answer and n.text not in named]
    return likely[seed % len(likely)] if likely else f"New {answer}"


def _pick(values: tuple[str, ...], key: str) -> str:
    return values[sha256(key.encode()).digest()[0] % len(values)]
