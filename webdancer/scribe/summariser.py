"""The summariser: what one page tells for a goal (paper, section 3.1: the visit tool's evidence and summary).

A goal in the scribe's own wording is looked up in what the reader understood of the page. For a goal in other words, the
lines that share most words with it are handed over as they are.
"""

import re
from typing import NamedTuple

from webdancer.scribe.knowledge import count_members, may_be_same
from webdancer.scribe.logical import Count, Lookup, Name
from webdancer.scribe.mentions import split_sentences, words_of
from webdancer.scribe.question import parse_goal, write_name, write_years
from webdancer.scribe.question_shapes import LIST_NOUNS
from webdancer.scribe.reader import Fact, Reading, read_page
from webdancer.scribe.relations import INVERSE_LISTS, RELATIONS, word_set
from webdancer.scribe.statements import state

_COMMON = word_set(
    "of in on at by to from for with that which who when where was is are were has had and or what how all full complete list"
    " about find out whether it its this tell me one"
)
SILENT = "does not tell this."
"""How the summary of a page ends that does not serve the goal."""
_MAX_LINES = 6
_MIN_OVERLAP = 0.25


class Summary(NamedTuple):
    """The summariser's reply."""

    rational: str
    evidence: str
    summary: str


def summarise(goal: str, title: str, text: str) -> Summary:
    """What the page says for the goal."""
    reading = read_page(title, text)
    form = parse_goal(goal)
    name = write_name(reading.title)
    if reading.namesakes and not reading.facts:
        rows = "\n".join(line for line in text.splitlines() if line.startswith("- "))
        people = " and ".join(write_name(person) for person in reading.namesakes)
        return Summary(
            "The page only parts things of one name.",
            rows,
            f"The name {name} is shared by {people}; each has an own page.",
        )
    if isinstance(form, Lookup):
        found = _find_value(form, reading)
        if found:
            return found
    if isinstance(form, Count):
        found = _find_list(form, reading)
        if found:
            return found
    return _find_overlap(goal, name, text, reading, known=form is not None)


def _find_value(form: Lookup, reading: Reading) -> Summary | None:
    """The facts of the page that give the value."""
    wanted = form.of if isinstance(form.of, Name) else reading.title
    subjects = [wanted, reading.title] if _is_about(wanted, reading) else [wanted]
    facts = [
        fact
        for fact in reading.facts
        if fact.relation == form.relation and any(may_be_same(s, fact.subject) for s in subjects)
    ]
    if not facts:
        return _find_backwards(form, wanted, reading)
    if RELATIONS[form.relation].volatile:
        facts.sort(key=lambda fact: -(fact.year or 0))
    best = max(facts, key=lambda fact: (fact.value == facts[0].value, bool(fact.value.hint)))
    lines = list(dict.fromkeys([*_alias_lines(wanted, reading), *(fact.line for fact in facts)]))
    statement = state(best.relation, best.subject, best.value, best.year)
    return Summary("The page states it directly.", "\n".join(lines), _with_alias(wanted, best, statement))


def _is_about(wanted: Name, reading: Reading) -> bool:
    return may_be_same(wanted, reading.title) or wanted.text in reading.aliases


def _alias_lines(wanted: Name, reading: Reading) -> list[str]:
    return [line for alias, line in reading.alias_lines if alias == wanted.text]


def _with_alias(wanted: Name, fact: Fact, statement: str) -> str:
    if wanted.text == fact.subject.text:
        return statement
    return f"{wanted.text} is another name of {write_name(fact.subject)}. {statement}"


def _find_backwards(form: Lookup, wanted: Name, reading: Reading) -> Summary | None:
    """The value where the page is its own: the list of the films directed by X tells who directed one of them."""
    for listing in reading.lists:
        if listing.kind in INVERSE_LISTS[form.relation]:
            for member, line in zip(listing.members, listing.member_lines, strict=True):
                if may_be_same(wanted, member.name):
                    evidence = f"{listing.heading}\n{line}"
                    return Summary(
                        "A list of the page holds it.", evidence, state(form.relation, wanted, listing.holder)
                    )
    return None


def _find_list(form: Count, reading: Reading) -> Summary | None:
    """The whole list."""
    for listing in reading.lists:
        if listing.kind != form.items.kind:
            continue
        number = len(listing.members)
        noun = list_noun(listing.kind, listing.holder)
        evidence = "\n".join((listing.heading, *listing.lines))
        if not listing.complete:
            return Summary("The list is a selection.", evidence, f"The page gives only a selection of {noun}.")
        years = write_years(form)
        cut = count_members(listing, form.first, form.last) if years else None
        rest = f", {cut} of them{years}" if cut is not None else ""
        entries = "entry" if number == 1 else "entries"
        return Summary("The page holds the list.", evidence, f"The list of {noun} has {number} {entries}{rest}.")
    return None


def list_noun(kind: str, holder: Name) -> str:
    """A list as a noun phrase: the films directed by Ana Velk."""
    return next(p for p in LIST_NOUNS if p.path[0] == kind).fill(write_name(holder))


def _find_overlap(goal: str, name: str, text: str, reading: Reading, *, known: bool) -> Summary:
    """The lines that share most words with the goal."""
    wanted = words_of(goal) - _COMMON
    own = words_of(name)
    scored = []
    for line in text.splitlines():
        for sentence in split_sentences(line) if not line.startswith(("#", "-")) and " | " not in line else [line]:
            said = words_of(sentence)
            shared = {w for w in wanted - own if _mentions(w, said)}
            if shared and len(shared) / max(1, len(wanted - own)) >= _MIN_OVERLAP:
                scored.append((len(shared), sentence))
    if not scored or known:
        return Summary("No part of the page serves the goal.", "", f"The page about {name} {SILENT}")
    most = max(score for score, _ in scored)
    lines = [sentence for score, sentence in scored if score == most][:_MAX_LINES]
    stated = [state(f.relation, f.subject, f.value, f.year) for f in reading.facts if f.line in lines]
    summary = " ".join(dict.fromkeys(stated)) or " ".join(re.sub(r"^[-#]+ ", "", line) for line in lines[:2])
    return Summary("These lines share their words with the goal.", "\n".join(lines), summary)


def _mentions(word: str, said: frozenset[str]) -> bool:
    """Whether a word, or another form of it, is among those that were said."""
    stem = word[: max(4, len(word) - 2)]
    return word in said or any(other.startswith(stem) for other in said)
