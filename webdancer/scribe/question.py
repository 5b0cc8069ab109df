"""The question grammar: logical form → English, and back.

The writer nests descriptions so that they can be read in one way only: what holds another description has it at its end,
and what other words follow has no clause that they could belong to. The parser tries the phrases of `question_shapes.py`
around the hole, recursively and with backtracking, and lets a reading pass only if the kinds of things fit: the author of a
bridge is no reading. `parse_question(write_question(form))` gives `form` again, at any depth of nesting.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from random import Random

from webdancer.scribe.logical import Count, Expr, Intersect, ListOf, LogicalForm, Lookup, Name
from webdancer.scribe.question_shapes import (
    ALSO_READ,
    CONDITIONS,
    COUNTS,
    COUNTS_OF_YEARS,
    LIST_NOUNS,
    NOUNS,
    QUESTIONS,
    Phrase,
)
from webdancer.scribe.relations import ENTITY_TYPES, LISTS, RELATIONS, word_set

ANYTHING = ENTITY_TYPES
MAX_CHARS = 2000
"""Longer questions and goals are not read: nobody asks them, and nesting without end would exhaust the parser."""
_MAX_NAME_CHARS = 160

_PARTICLE = "|".join(
    sorted(word_set("of the a an and in on at for de la van von to with from by under over as is are or into beyond"))
)
_TOKEN = r"[A-Z0-9À-ÖØ-Þ][\w'’.:&+/-]*"
_NAME = re.compile(rf"{_TOKEN}(?: (?:(?:{_PARTICLE}) )*{_TOKEN})*")
_CODE_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_/.][A-Za-z0-9]+)+")
_HINTED = re.compile(r"the ((?:[a-z]+ ){1,3}|[a-z]+ )(?=[A-Z0-9À-ÖØ-Þ])")
_FUNCTION_WORDS = word_set(
    "of in on at by to from for with that which where who whose whom after into under and behind over about through across"
)
_ARTICLE_WORDS = word_set("River Bridge Viaduct Footbridge Museum Gallery Collection Prize Medal Award Institute")
"""Words that make a name take an article in a sentence, if it opens or ends with one of them."""
_LIST_OPENINGS = ("the complete list of ", "the full list of ")
_TYPE_WORDS = {t: t for t in ENTITY_TYPES} | {"label": "company", "work": "museum"}


def write_name(name: Name) -> str:
    """A name as it stands in a sentence, with its describing word or article."""
    if name.hint:
        return f"the {name.hint} {name.text}"
    return f"the {name.text}" if takes_article(name.text) else name.text


def takes_article(name: str) -> bool:
    """Whether a name is used with `the`: the Orsk Bridge, the River Orn, the University of Velm."""
    words = name.split()
    if name.startswith(("The ", "University of ")):
        return name.startswith("U")
    return words[0] == "River" or words[-1] in _ARTICLE_WORDS or name.endswith("Museum of Art")


class Place(IntEnum):
    """What follows a noun phrase in its sentence."""

    LAST = 0
    """Nothing."""
    INSIDE = 1
    """The rest of a clause: in which city was … born."""
    JOINED = 2
    """Another clause, which must not seem to be part of the phrase: … and has won the Lunt Prize."""


def write_noun(expr: Expr, rng: Random, place: Place = Place.LAST) -> str:
    """A noun phrase for a thing, worded by chance."""
    if isinstance(expr, Name):
        return write_name(expr)
    phrases = _fit([(p, inner) for p, inner in _phrases_for(expr) if p in _NOUN_SET], place)
    phrase, inner = rng.choice(phrases)
    return phrase.fill(write_noun(inner, rng, max(place, _place_in(phrase))))


def _fit(phrases: list[tuple[Phrase, Expr]], place: Place) -> list[tuple[Phrase, Expr]]:
    """The phrases that read well at a place; all where none does.

    Phrases with words behind their hole end with a verb. They stand last only, and hold names only: "the country in which
    the city in which Ana Velk was born lies" is English, but nobody says it.
    """
    closed = [(p, inner) for p, inner in phrases if not p.after or (place is Place.LAST and isinstance(inner, Name))]
    if place is Place.JOINED:
        closed = [(p, inner) for p, inner in closed if not p.has_clause] or closed
    return closed or phrases


def _place_in(phrase: Phrase) -> Place:
    return Place.INSIDE if phrase.after.rstrip("?") else Place.LAST


def write_question(form: LogicalForm, rng: Random) -> str:
    """A question in English, worded by chance."""
    if isinstance(form, Lookup):
        return _write_lookup(form, rng)
    if isinstance(form, Count):
        years = write_years(form)
        phrase = rng.choice([p for p in (COUNTS_OF_YEARS if years else COUNTS) if p.path[0] == form.items.kind])
        text = phrase.fill(write_noun(form.items.of, rng, _place_in(phrase)))
        return text.replace("{f}", years).replace("{F}", years.strip().capitalize())
    return _write_intersection(form, rng)


def _write_lookup(form: Lookup, rng: Random) -> str:
    """A direct question, or now and then an opening and a plain noun phrase."""
    opening = _opening(form)
    nouns = [(p, inner) for p, inner in _phrases_for(form) if p in _NOUN_SET and _is_plain(p, opening)]
    direct = [(p, inner) for p, inner in _phrases_for(form) if p in _QUESTION_SET]
    if nouns and (not direct or rng.random() < 0.25):
        phrase, inner = rng.choice(_fit(nouns, Place.LAST))
        return f"{opening}{phrase.fill(write_noun(inner, rng, _place_in(phrase)))}?"
    phrase, inner = rng.choice(direct)
    return phrase.fill(write_noun(inner, rng, _place_in(phrase)))


def _opening(form: Lookup) -> str:
    """How a question opens that goes on with a noun phrase; empty if that would leave open what is wanted."""
    kinds = RELATIONS[form.relation].range
    if kinds <= ENTITY_TYPES - {"person"}:
        return f"Which {min(kinds)} is " if len(kinds) == 1 else ""
    return "Who is " if kinds == {"person"} else "What is "


def _is_plain(phrase: Phrase, opening: str) -> bool:
    """Whether a phrase reads well behind an opening: no clause, and not "Which country is the country of"."""
    return bool(opening) and not phrase.has_clause and opening.split()[1] not in phrase.before.split()


def _write_intersection(form: Intersect, rng: Random) -> str:
    """Both conditions joined by "and", or the first one as a participle if it ends in a clause that could seem to go on."""
    left = next(p for p in CONDITIONS if p.path[0] == form.left.kind)
    participle = next(p for p in CONDITIONS if p.path[0] == form.left.kind and p.num == 1)
    right = next(p for p in CONDITIONS if p.path[0] == form.right.kind)
    second = right.fill(write_noun(form.right.of, rng, _place_in(right)))
    first = write_noun(form.left.of, rng, Place.JOINED)
    if not _PRONOUN.isdisjoint(first.split()) or rng.random() < 0.35:
        return f"Which {form.member} {participle.fill(first)} {second}?"
    if isinstance(form.left.of, Name) and form.left.kind == form.right.kind:
        second = f"{_BOTH}{_preposition(right)}{write_noun(form.right.of, rng, _place_in(right))}{right.after}"
        return f"Which {form.member} {left.before}{first}{second}?"
    opening = f"Which {form.member} "
    if rng.random() < 0.5:
        called, pronoun = _CALLED.get(form.member, "name"), "who" if form.member == "person" else "that"
        opening = f"What is the {called} of the {form.member} {pronoun} "
    return f"{opening}{left.fill(first)} and {second}?"


_CALLED = {"film": "title", "novel": "title", "album": "title", "paper": "title"}
_BOTH = " as well as "
_PRONOUN = word_set("who whom that which where")


def _preposition(phrase: Phrase) -> str:
    """The last word of a condition if what follows "as well as" needs it again: "is cited by X as well as by Y"."""
    last = phrase.before.split()[-1]
    return f"{last} " if last in {"by", "of", "in", "at", "on"} else ""


def write_goal(form: Lookup | Count, rng: Random) -> str:
    """What to look for on a page, as a noun phrase: one value, or a whole list with the years that count."""
    if isinstance(form, Lookup):
        return write_noun(form, rng)
    return rng.choice(_LIST_OPENINGS) + write_list(form.items, rng) + write_years(form)


def write_list(items: ListOf, rng: Random) -> str:
    """A list as a noun phrase: the films directed by Ana Velk."""
    phrase = next(p for p in LIST_NOUNS if p.path[0] == items.kind)
    return phrase.fill(write_noun(items.of, rng))


@lru_cache(maxsize=20_000)
def parse_question(text: str) -> LogicalForm | None:
    """What a question asks; None if it is not of this grammar."""
    body = " ".join(text.split())
    if not body.endswith("?") or len(body) > MAX_CHARS:
        return None
    for form in _questions(body[:-1].rstrip()):
        return form
    return None


@lru_cache(maxsize=20_000)
def parse_noun(text: str) -> Expr | None:
    """What a noun phrase stands for; None if it is not of this grammar."""
    body = " ".join(text.split())
    if len(body) > MAX_CHARS:
        return None
    for expr, _ in _nouns(body):
        return expr
    return None


@lru_cache(maxsize=20_000)
def parse_goal(text: str) -> Lookup | Count | None:
    """What a goal of `write_goal` asks for; None for goals in other words."""
    body = " ".join(text.split()).rstrip(".")
    if len(body) > MAX_CHARS:
        return None
    for opening in _LIST_OPENINGS:
        if body.startswith(opening):
            for count in _counts(body.removeprefix(opening), LIST_NOUNS, LIST_NOUNS):
                return count
    expr = parse_noun(body)
    return expr if isinstance(expr, Lookup) else None


# Writing


def _phrases_for(form: Lookup) -> list[tuple[Phrase, Expr]]:
    """Phrases that say the outermost step, or the two outermost steps in one, each with what its hole holds."""
    result: list[tuple[Phrase, Expr]] = [(p, form.of) for p in _BY_PATH.get((form.relation,), ())]
    if isinstance(form.of, Lookup):
        inner = form.of
        result += [(p, inner.of) for p in _BY_PATH.get((form.relation, inner.relation), ())]
    return result


def write_years(form: Count) -> str:
    if form.first is not None and form.last is not None:
        return f" from {form.first} to {form.last}"
    if form.first is not None:
        return f" after {form.first - 1}"
    if form.last is not None:
        return f" before {form.last + 1}"
    return ""


# Reading. Every reader yields its readings, the likeliest first, with the kinds of things that they can stand for.


def _questions(body: str) -> Iterator[LogicalForm]:
    yield from _counts(body, _YEARS_COUNTS, _PLAIN_COUNTS)
    yield from _fronted_counts(body)
    yield from _intersections(body)
    for phrase in _PARSED_QUESTIONS:
        for inner, types in _holes(body, phrase):
            if form := _steps(phrase.path, inner, types):
                yield form
    if match := _OPENING.match(body):
        for expr, types in _nouns(body[match.end() :]):
            if isinstance(expr, Lookup) and (match[1] is None or match[1] in types):
                yield expr


_OPENING = re.compile(r"(?:Who|What) (?:is|was) |Which (\w+) is ")
_YEARS_BEHIND = re.compile(r"^(.*?) (after \d{4}|before \d{4}|from \d{4} to \d{4})$")
_YEARS_BEFORE = re.compile(r"^(After \d{4}|Before \d{4}|From \d{4} to \d{4})(, how .*)$")


def _counts(body: str, of_years: tuple[Phrase, ...], plain: tuple[Phrase, ...]) -> Iterator[Count]:
    if match := _YEARS_BEHIND.match(body):
        yield from (Count(items, *_read_years(match[2])) for items in _lists(match[1], of_years))
    yield from (Count(items) for items in _lists(body, plain))


def _fronted_counts(body: str) -> Iterator[Count]:
    if match := _YEARS_BEFORE.match(body):
        yield from (Count(items, *_read_years(match[1])) for items in _lists(match[2], _FRONTED_COUNTS))


def _read_years(text: str) -> tuple[int | None, int | None]:
    """The first and the last year of "after 1990", "before 1990" or "from 1980 to 1990"."""
    word, year, *rest = text.lower().split()
    if rest:
        return int(year), int(rest[1])
    return (int(year) + 1, None) if word == "after" else (None, int(year) - 1)


def _lists(body: str, phrases: tuple[Phrase, ...]) -> Iterator[ListOf]:
    for phrase in phrases:
        for inner, types in _holes(body, phrase):
            if LISTS[phrase.path[0]].holder in types:
                yield ListOf(phrase.path[0], inner)


_INTERSECTION = re.compile(r"(?:Which|What is the (?:name|title) of the) (\w+) (?:that |who )?(.+)")


def _intersections(body: str) -> Iterator[Intersect]:
    match = _INTERSECTION.fullmatch(body)
    if not match or match[1] not in ENTITY_TYPES:
        return
    member, rest = match[1], match[2]
    kinds = [p for p in CONDITIONS if member in LISTS[p.path[0]].members]
    for left in kinds:
        if not rest.startswith(left.before):
            continue
        for right in kinds:
            if right.num == 0:
                joint = " and " if left.num == 0 else " "
                yield from _split(rest, left, joint + right.before, right, member)
                if left == right:
                    # What both share stands once: it is put behind the first thing too.
                    shared = rest[: len(rest) - len(left.after)].replace(_BOTH, left.after + _BOTH) + left.after
                    yield from _split(shared, left, _BOTH + _preposition(right), right, member)


def _split(rest: str, left: Phrase, joint: str, right: Phrase, member: str) -> Iterator[Intersect]:
    """Readings of two conditions with a joint between them, at each place where the joint's words stand."""
    at = rest.find(joint)
    while at >= 0:
        first, second = rest[:at], right.before + rest[at + len(joint) :]
        at = rest.find(joint, at + 1)
        for a in _lists(first, (left,)):
            for b in _lists(second, (right,)):
                yield Intersect(member, a, b)


def _holes(body: str, phrase: Phrase) -> Iterator[tuple[Expr, frozenset[str]]]:
    """Readings of what stands in the hole of `phrase`, if the words around it are those of `body`."""
    if body.startswith(phrase.before) and body.endswith(phrase.after):
        inner = body[len(phrase.before) : len(body) - len(phrase.after)]
        if inner:
            yield from _nouns(inner)


def _steps(path: tuple[str, ...], inner: Expr, types: frozenset[str]) -> Lookup | None:
    """`inner` followed by the relations of `path`, the last one first; None where the kinds do not fit."""
    form: Expr = inner
    for relation in reversed(path):
        if not RELATIONS[relation].domain & types:
            return None
        form, types = Lookup(relation, form), RELATIONS[relation].range
    return form if isinstance(form, Lookup) else None


def _nouns(text: str) -> Iterator[tuple[Expr, frozenset[str]]]:
    if leaf := parse_name(text):
        yield leaf, _leaf_types(leaf)
        return
    for phrase in _NOUNS_BY_WORD.get(" ".join(text.split(" ", 2)[:2]), ()):
        for inner, types in _holes(text, phrase):
            form = _steps(phrase.path, inner, types)
            if form:
                yield form, RELATIONS[form.relation].range


def _leaf_types(name: Name) -> frozenset[str]:
    if not name.hint:
        return ANYTHING
    return frozenset({_TYPE_WORDS.get(name.hint, "person")})


@lru_cache(maxsize=20_000)
def parse_name(text: str) -> Name | None:
    """A plain name, with article or describing word if there is one; None if `text` is none."""
    if len(text) > _MAX_NAME_CHARS:
        return None
    if match := _HINTED.match(text):
        hint = match[1].strip()
        rest = text[match.end() :]
        if not _FUNCTION_WORDS & set(hint.split()) and _NAME.fullmatch(rest):
            return Name(rest, hint)
        return None
    bare = text.removeprefix("the ")
    if _NAME.fullmatch(bare):
        return Name(bare)
    for hint in ("repository ", ""):
        if bare.startswith(hint) and _CODE_NAME.fullmatch(bare.removeprefix(hint)):
            return Name(bare.removeprefix(hint), hint.strip())
    return None


_BY_PATH: dict[tuple[str, ...], tuple[Phrase, ...]] = {}
for _phrase in (*NOUNS, *QUESTIONS):
    _BY_PATH[_phrase.path] = (*_BY_PATH.get(_phrase.path, ()), _phrase)
_NOUN_SET = frozenset(NOUNS)
_QUESTION_SET = frozenset(QUESTIONS)
_NOUNS_BY_WORD: dict[str, tuple[Phrase, ...]] = {}
for _phrase in NOUNS:
    _key = " ".join(_phrase.before.split()[:2])
    _NOUNS_BY_WORD[_key] = (*_NOUNS_BY_WORD.get(_key, ()), _phrase)
_PARSED_QUESTIONS = tuple(p._replace(after=p.after.removesuffix("?")) for p in (*QUESTIONS, *ALSO_READ))
_PLAIN_COUNTS = tuple(p._replace(after=p.after.removesuffix("?")) for p in COUNTS)
_YEARS_COUNTS = (
    *(p._replace(after=p.after.removesuffix("{f}?")) for p in COUNTS_OF_YEARS if "{f}" in p.after),
    *(p for p in _PLAIN_COUNTS if p.after and p.path in {q.path for q in COUNTS_OF_YEARS}),
)
_FRONTED_COUNTS = tuple(
    p._replace(before=p.before.removeprefix("{F}"), after=p.after.removesuffix("?"))
    for p in COUNTS_OF_YEARS
    if "{F}" in p.before
)
