"""The question writer (paper, section 2, CRAWLQA): a group of pages → questions with answer and evidence.

The pages are read into knowledge; every question is a logical form that this knowledge answers, that no page of the group
answers alone, and whose answer does not change from year to year.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import combinations
from random import Random
from typing import NamedTuple

from webdancer.scribe.knowledge import Knowledge, knowledge_of, shared_members, told_by_one_page
from webdancer.scribe.logical import (
    Count,
    Expr,
    Intersect,
    ListOf,
    LogicalForm,
    Lookup,
    Name,
    depth,
    names_in,
    substitute,
)
from webdancer.scribe.mentions import words_of
from webdancer.scribe.question import write_question
from webdancer.scribe.question_shapes import COUNTS_OF_YEARS
from webdancer.scribe.reader import Listing, Reading, read_page
from webdancer.scribe.relations import ENTITY_TYPES, LISTS, RELATIONS, word_set

MAX_HOPS = 4
MIN_LIST = 3
LARGE_COUNT = 13
LARGE_COUNT_BONUS = 20
"""Short lists are so many that counts below `LARGE_COUNT` come by themselves; larger ones are preferred so many times."""
ASKED_BY_YEAR = frozenset(phrase.path[0] for phrase in COUNTS_OF_YEARS)
"""Lists whose members can be asked for by year."""
MAX_STARTS = 40
"""Years that spans of years begin or end at: the pairs of more would take long."""
NAMED_WITH_KIND = word_set("film novel album band paper repository")
UNDESCRIBED = word_set("film album museum bridge prize band river paper")
"""Kinds of things that hardly any other page describes uniquely: a simple question about one could not be made harder."""
UNASKED = frozenset({"occupation"})
"""Relations that are too often given away by the describing word before a name."""


class Question(NamedTuple):
    """A question that the pages answer."""

    form: LogicalForm
    text: str
    answer: str
    urls: tuple[str, ...]


class _Step(NamedTuple):
    """A thing and how it is described from a page of the group."""

    expr: Expr
    value: Name


def write_questions(kind: str, pages: list[tuple[str, str, str]], num: int, rng: Random) -> list[Question]:
    """Up to `num` questions of `kind` (count, multi_hop, intersection, simple) about pages given as (url, title, text)."""
    group = Group(pages)
    forms: Iterator[LogicalForm]
    match kind:
        case "count":
            forms = _counts(group, rng)
        case "multi_hop":
            forms = _chains(group, rng)
        case "intersection":
            forms = _intersections(group, rng)
        case "simple":
            forms = _simple(group, rng)
        case _:
            return []
    questions: list[Question] = []
    asked: set[object] = set()
    answers: set[str] = set()
    for form in forms:
        if len(questions) == num:
            break
        question = group.ask(form, single=kind == "simple", rng=rng)
        if question and _gist(form) not in asked and question.answer not in answers:
            asked.add(_gist(form))
            answers.add(question.answer)
            questions.append(question)
    return questions


def _gist(form: LogicalForm) -> object:
    """What makes two questions of one group too much alike."""
    if isinstance(form, Count):
        return form.items.kind, form.items.of, form.first, form.last
    if isinstance(form, Intersect):
        return form.left.kind, form.right.kind
    return form.relation, depth(form), next(names_in(form))


class Group:
    """The pages of a prompt and what they say together."""

    def __init__(self, pages: list[tuple[str, str, str]]) -> None:
        self.readings: list[tuple[str, Reading]] = [(url, read_page(title, text)) for url, title, text in pages]
        self.types = {url: reading.type for url, reading in self.readings}
        self.knowledge: Knowledge = knowledge_of(self.readings)
        self.about: dict[Name, str] = {
            reading.title: url for url, reading in self.readings if reading.facts or reading.lists
        }

    def steps_from(self, thing: Name) -> list[tuple[str, Name]]:
        """(relation, value) of what the thing's own page says of it, volatile facts left out."""
        url = self.about[thing]
        found: dict[str, Name] = {}
        for page_url, reading in self.readings:
            if page_url != url:
                continue
            for fact in reading.facts:
                if fact.subject == thing and not RELATIONS[fact.relation].volatile and fact.relation not in found:
                    values = self.knowledge.values(fact.relation, thing)
                    if len(values) == 1:
                        found[fact.relation] = values[0].value
        return list(found.items())

    def chains(self, max_hops: int, *, start: Name | None = None) -> Iterator[_Step]:
        """Every thing with a page here, by its name and by all descriptions of up to `max_hops` steps."""
        level = [_Step(thing, thing) for thing in self.about if start is None or thing == start]
        seen = {step.expr: {step.value} for step in level}
        for _ in range(max_hops + 1):
            yield from level
            onward = []
            for step in level:
                for relation, value in self.steps_from(step.value):
                    if value in self.about and RELATIONS[relation].is_entity and value not in seen[step.expr]:
                        expr = Lookup(relation, step.expr)
                        seen[expr] = seen[step.expr] | {value}
                        onward.append(_Step(expr, value))
            level = onward

    def ask(self, form: LogicalForm, *, single: bool, rng: Random) -> Question | None:
        """The form as a question, if it meets the rules."""
        outcome = self.knowledge.work_off(form)
        if outcome.value is None or (not single and told_by_one_page(form, self.readings)):
            return None
        form = self._with_kinds(form, rng)
        text = write_question(form, rng)
        answer = outcome.value.text
        if not single and len(outcome.urls) < 2:
            return None
        if words_of(answer) and words_of(answer) <= words_of(text):
            return None
        return Question(form, text, answer, outcome.urls)

    def _with_kinds(self, form: LogicalForm, rng: Random) -> LogicalForm:
        """The form with "the film", "the paper" before names that do not tell what they name."""
        for name in dict.fromkeys(names_in(form)):
            kind = next((r.type for _, r in self.readings if r.title == name), None)
            if kind in NAMED_WITH_KIND and not name.hint and (kind in ("paper", "repository") or rng.random() < 0.7):
                form = substitute(form, name.text, Name(name.text, kind or ""))
        return form


def _weighted(items: list[tuple[float, LogicalForm]], rng: Random) -> Iterator[LogicalForm]:
    """The forms in an order drawn by weight, without replacement."""
    keyed = [(rng.random() ** (1.0 / weight), form) for weight, form in items]
    keyed.sort(key=lambda pair: -pair[0])
    return iter([form for _, form in keyed])


def _is_good_value(relation: str, value: Name, group: Group) -> bool:
    """Whether a value is fit to be the answer: of things, only their full names."""
    if relation in UNASKED or RELATIONS[relation].volatile:
        return False
    return value in group.about or not is_short_form(value)


def is_short_form(name: Name) -> bool:
    """Whether a name looks like a short form of another: initials."""
    return any(len(word) == 2 and word.endswith(".") for word in name.text.split())


def _chains(group: Group, rng: Random) -> Iterator[LogicalForm]:
    items: list[tuple[float, LogicalForm]] = []
    for step in group.chains(MAX_HOPS - 1):
        if isinstance(step.expr, Name):
            continue
        for relation, value in group.steps_from(step.value):
            if _is_good_value(relation, value, group) and value not in _on_the_way(step.expr, group):
                form = Lookup(relation, step.expr)
                items.append((_rarity(relation) * depth(form), form))
    return _weighted(items, rng)


def _rarity(relation: str) -> float:
    """Weight of a relation as the last step: words of few values answer too many questions alike."""
    return 0.15 if "text" in RELATIONS[relation].range else 1.0


def _simple(group: Group, rng: Random) -> Iterator[LogicalForm]:
    items: list[tuple[float, LogicalForm]] = [
        (_rarity(relation), Lookup(relation, thing))
        for thing, url in group.about.items()
        if group.types[url] not in UNDESCRIBED
        for relation, value in group.steps_from(thing)
        if _is_good_value(relation, value, group)
    ]
    return _weighted(items, rng)


def _counts(group: Group, rng: Random) -> Iterator[LogicalForm]:
    """Counts of whole lists and of their members of some years.

    Answers shall spread. What is asked of a list is therefore drawn from the numbers that it allows, not from the years,
    and long lists, large numbers and holders that are described by many steps are preferred.
    """
    items: list[tuple[float, LogicalForm]] = []
    for step in group.chains(MAX_HOPS - 1):
        if isinstance(step.expr, Name):
            continue
        for kind in LISTS:
            found = group.knowledge.listing(ListOf(kind, step.value))
            if found is None or found[1] != group.about[step.value] or len(found[0].members) < MIN_LIST:
                continue
            forms = _by_number(ListOf(kind, step.expr), found[0], rng)
            weights = {n: n * (LARGE_COUNT_BONUS if n >= LARGE_COUNT else 1) for n in forms}
            share = depth(step.expr) * len(found[0].members) / sum(weights.values())
            items += [(weights[number] * share, form) for number, form in forms.items()]
    return _weighted(items, rng)


def _by_number(items: ListOf, listing: Listing, rng: Random) -> dict[int, Count]:
    """For every number that the list as a whole or its members of some years come to, one way to ask for it.

    Not for one: the only member may be the very thing that led to the list, whose page then tells it all.
    """
    whole = {len(listing.members): Count(items)}
    years = sorted(member.year for member in listing.members if member.year is not None)
    if len(years) < len(listing.members) or years[0] == years[-1] or items.kind not in ASKED_BY_YEAR:
        return whole
    starts = sorted({year - year % 5 for year in years})
    starts = starts[:: len(starts) // MAX_STARTS + 1]
    spans: list[tuple[int | None, int | None]] = [(first, last + 4) for first, last in combinations(starts, 2)]
    spans += [(start + 1, None) for start in starts] + [(None, start - 1) for start in starts]
    rng.shuffle(spans)
    by_number = {_num_between(years, first, last): Count(items, first, last) for first, last in spans}
    return {number: form for number, form in {**by_number, **whole}.items() if number > 1}


def _num_between(years: list[int], first: int | None, last: int | None) -> int:
    """How many of the sorted years are from `first` to `last`."""
    end = len(years) if last is None else bisect_right(years, last)
    return end - (0 if first is None else bisect_left(years, first))


def _intersections(group: Group, rng: Random) -> Iterator[LogicalForm]:
    sides: list[tuple[ListOf, Listing]] = []
    for step in group.chains(MAX_HOPS - 2):
        for kind in LISTS:
            found = group.knowledge.listing(ListOf(kind, step.value))
            if found is not None and found[1] == group.about[step.value] and len(found[0].members) > 1:
                sides.append((ListOf(kind, step.expr), found[0]))
    items: list[tuple[float, LogicalForm]] = []
    for left, first in sides:
        for right, second in sides:
            if (first.kind, first.holder) == (second.kind, second.holder) or first.holder == second.holder:
                continue
            members = LISTS[left.kind].members & LISTS[right.kind].members
            described = sum(isinstance(side.of, Lookup) for side in (left, right))
            if not described or not members or (isinstance(left.of, Lookup) and isinstance(right.of, Name)):
                continue  # a description reads best at the end
            shared = shared_members(first, second)
            if len(shared) != 1 or shared[0].text in {
                name.text for side in (left, right) for name in _on_the_way(side.of, group)
            }:
                continue
            member = _member_type(shared[0], members, group)
            if member in ENTITY_TYPES and not is_short_form(shared[0]):
                items.append((float(described), Intersect(member, left, right)))
    return _weighted(items, rng)


def _on_the_way(expr: Expr, group: Group) -> list[Name]:
    """The things that a description passes, its name included."""
    names = []
    while isinstance(expr, Lookup):
        value = group.knowledge.work_off(expr).value
        if value:
            names.append(value)
        expr = expr.of
    return [*names, expr]


def _member_type(name: Name, kinds: frozenset[str], group: Group) -> str:
    """What kind of thing a shared member is: as its page says, else the only possible one."""
    for _, reading in group.readings:
        if reading.title == name and reading.type in kinds:
            return reading.type
    return min(kinds) if len(kinds) == 1 else ""
