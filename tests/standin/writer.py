"""The writer role: questions of the wanted kind from the pages of a prompt."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from .facts import all_asks, find
from .prompt import PromptPage
from .questions import COUNTING, Ask, Beside, Named, Relation, Target
from .reading import Reading, says

_MIN_TITLE_WORDS = 2
"""A chapter whose title is one ordinary word cannot be told from the word."""


def write_questions(
    kind: str, pages: Sequence[PromptPage], *, num: int, rng: random.Random, miscount: float
) -> list[dict[str, object]]:
    """Up to `num` questions in the form that the prompt asks for.

    Args:
        miscount: share of counted answers that are one off, as models count.
    """
    readings = [Reading.of(page.title, page.text) for page in pages]
    drafts = list(_DRAFTS[kind](pages, readings)) if kind in _DRAFTS else []
    rng.shuffle(drafts)
    written: list[dict[str, object]] = []
    taken = set[Relation]()
    for ask, answer, urls in drafts:
        if len(written) == num:
            break
        if says(str(ask), answer) or (ask.relation in taken and ask.relation is not Relation.BOTH):
            continue
        taken.add(ask.relation)
        if ask.relation in COUNTING and rng.random() < miscount:
            answer = str(int(answer) + 1)
        written.append({"question": str(ask), "answer": answer, "evidence_urls": urls})
    return written


Draft = tuple[Ask, str, list[str]]


def _simple(pages: Sequence[PromptPage], readings: Sequence[Reading]) -> Iterator[Draft]:
    """One fact of a page that is asked for by its name; answers that hold the name cannot be asked about in other words."""
    for page, reading in zip(pages, readings, strict=True):
        if not can_be_named(reading):
            continue
        for ask in all_asks(reading):
            found = find(reading, ask)
            if found and not says(found.answer, reading.name):
                yield ask, found.answer, [page.url]


def _multi_hop(pages: Sequence[PromptPage], readings: Sequence[Reading]) -> Iterator[Draft]:
    yield from _chained(pages, readings, counting=False)


def _count(pages: Sequence[PromptPage], readings: Sequence[Reading]) -> Iterator[Draft]:
    yield from _chained(pages, readings, counting=True)


def _chained(pages: Sequence[PromptPage], readings: Sequence[Reading], *, counting: bool) -> Iterator[Draft]:
    """Facts of a page that one or several pages before it lead to, each by naming the next."""
    for first in range(len(readings) - 1):
        if not can_be_named(readings[first]):
            continue
        target: Target = Named(readings[first].name, readings[first].noun)
        for last in range(first + 1, len(readings)):
            step = _described(readings[last - 1], readings[last], target)
            if step is None:
                break
            target = step
            for ask in all_asks(readings[last]):
                found = find(readings[last], ask)
                asked = replace(ask, target=target)
                if found and (ask.relation in COUNTING) is counting and not says(str(asked), readings[last].name):
                    yield asked, found.answer, [page.url for page in pages[first : last + 1]]


def _described(source: Reading, goal: Reading, target: Target) -> Target | None:
    """The goal by what stands beside its name in the source, which `target` stands for."""
    if not can_be_named(goal):
        return None
    mentions = source.mentions(goal.name, goal.noun)
    return Beside(goal.noun, mentions[0].side, mentions[0].words, target) if mentions else None


def _intersection(pages: Sequence[PromptPage], readings: Sequence[Reading]) -> Iterator[Draft]:
    """The one module, PEP or RFC that two pages both list, each beside others."""
    for i, j in combinations(range(len(readings)), 2):
        if not (can_be_named(readings[i]) and can_be_named(readings[j])):
            continue
        first, second = (Named(readings[n].name, readings[n].noun) for n in (i, j))
        for noun in ("module", "PEP", "RFC"):
            asks = [Ask(Relation.BOTH, target, (noun,), target) for target in (first, second)]
            found = [find(reading, ask) for reading, ask in zip((readings[i], readings[j]), asks, strict=True)]
            names = [set(side.answer.split(", ")) if side else set() for side in found]
            common = names[0] & names[1]
            if len(common) == 1 and all(len(side) > 1 for side in names):
                yield Ask(Relation.BOTH, first, (noun,), second), common.pop(), [pages[i].url, pages[j].url]


def can_be_named(reading: Reading) -> bool:
    """Whether the page's name would be understood in a question."""
    if reading.noun == "module":
        return True
    return '"' not in reading.name and len(reading.name.split()) >= _MIN_TITLE_WORDS and "Index" not in reading.name


_DRAFTS = {"simple": _simple, "multi_hop": _multi_hop, "count": _count, "intersection": _intersection}
