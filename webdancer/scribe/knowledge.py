"""What has been read so far, with its sources, and what it answers.

The writer keeps the pages of a group here, the searcher the reports of the pages that it visited. A logical form is worked
off from the inside out; where a step is not known yet, the result says which.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from webdancer.scribe.logical import Count, Expr, Intersect, ListOf, LogicalForm, Lookup, Name
from webdancer.scribe.reader import Fact, Listing, Reading
from webdancer.scribe.relations import INVERSE_LISTS, RELATIONS


class Sourced(NamedTuple):
    """A value and the page that states it."""

    value: Name
    url: str


class Outcome(NamedTuple):
    """How far a form could be worked off: its value, or the first step that is not known."""

    value: Name | None = None
    missing: Lookup | ListOf | None = None
    """A step whose `of` is a name: what has to be found out next. None also where nothing can help any more."""
    urls: tuple[str, ...] = ()
    """Pages that were needed, in the order of the steps."""


class Knowledge:
    """Facts and lists of several pages.

    Args:
        use_lists_backwards: whether "Films directed: The Fox" on the page of X also tells who directed The Fox.
        use_any_list: whether a list of any kind on the page of X hints that X is what its members lead to.
    """

    def __init__(self, *, use_lists_backwards: bool = False, use_any_list: bool = False) -> None:
        self._facts: dict[tuple[str, str], list[tuple[Fact, str]]] = defaultdict(list)
        self._lists: dict[tuple[str, str], list[tuple[Listing, str]]] = defaultdict(list)
        self._holders: dict[tuple[str, str], list[tuple[Listing, str]]] = defaultdict(list)
        self._aliases: dict[str, Name] = {}
        self._titles: dict[str, list[Name]] = defaultdict(list)
        self._listed: dict[str, list[Sourced]] = defaultdict(list)
        self._counts: dict[Count, tuple[int, str]] = {}
        self._backwards, self._any_list = use_lists_backwards, use_any_list

    def add(self, reading: Reading, url: str) -> None:
        """Take up what a page says."""
        title = reading.title
        if title not in self._titles[title.text]:
            self._titles[title.text].append(title)
        for alias in reading.aliases:
            self._aliases.setdefault(alias, title)
        for text in reading.listed if self._any_list else ():
            self._listed[text].append(Sourced(title, url))
        for fact in reading.facts:
            self.add_fact(fact, url)
        for listing in reading.lists:
            if listing.complete:
                self._lists[listing.kind, listing.holder.text].append((listing, url))
            for member in listing.members:
                self._holders[listing.kind, member.name.text].append((listing, url))

    def add_fact(self, fact: Fact, url: str) -> None:
        """Take up one statement."""
        self._facts[fact.relation, fact.subject.text].append((fact, url))

    def note_count(self, form: Count, number: int, url: str) -> None:
        """Take up how many members a named thing's list was said to have; this outweighs counting."""
        self._counts[form] = (number, url)

    def resolve(self, name: Name) -> Name:
        """The thing under its page's title, where `name` is another name of it."""
        if name.text in self._aliases and name.text not in self._titles:
            return self._aliases[name.text]
        return name

    def values(self, relation: str, of: Name) -> list[Sourced]:
        """All values stated for a relation of a thing, each once, the best attested first; of changing values the newest."""
        found: dict[str, list[Sourced]] = defaultdict(list)
        newest: dict[str, int] = {}
        of = self.resolve(of)
        for fact, url in self._facts.get((relation, of.text), ()):
            if may_be_same(of, fact.subject):
                value = self.resolve(fact.value)
                found[value.text].append(Sourced(value, url))
                newest[value.text] = max(newest.get(value.text, 0), fact.year or 0)
        if self._backwards:
            for kind in INVERSE_LISTS[relation]:
                for listing, url in self._holders.get((kind, of.text), ()):
                    found[listing.holder.text].append(Sourced(listing.holder, url))
        if RELATIONS[relation].is_entity:
            for holder in self._listed.get(of.text, ()):
                found[holder.value.text].append(holder)
        ranked = sorted(found, key=lambda text: len(found[text]), reverse=True)
        if RELATIONS[relation].volatile:
            ranked.sort(key=lambda text: newest.get(text, 0), reverse=True)
        return [max(found[text], key=lambda item: bool(item.value.hint)) for text in ranked]

    def listing(self, items: ListOf) -> tuple[Listing, str] | None:
        """The complete list of a thing."""
        assert isinstance(items.of, Name)
        of = self.resolve(items.of)
        for listing, url in self._lists.get((items.kind, of.text), ()):
            if may_be_same(of, listing.holder):
                return listing, url
        return None

    def things(self, kind: str) -> list[Name]:
        """All things of one type that something was said of, as far as their relations show it."""
        found: dict[Name, None] = {}
        for (relation, _), facts in self._facts.items():
            known = RELATIONS[relation]
            for fact, _ in facts:
                if known.range == {kind}:
                    found[fact.value] = None
                if known.domain == {kind}:
                    found[fact.subject] = None
        return list(found)

    def work_off(self, form: LogicalForm | Expr) -> Outcome:
        """Evaluate a form as far as it is known."""
        if isinstance(form, Name):
            return Outcome(self.resolve(form))
        if isinstance(form, Lookup):
            return self._look_up(form)
        if isinstance(form, Count):
            return self._count(form)
        return self._intersect(form)

    def _look_up(self, form: Lookup) -> Outcome:
        inner = self.work_off(form.of)
        if inner.value is None:
            return inner
        values = self.values(form.relation, inner.value)
        if not values:
            return Outcome(None, Lookup(form.relation, inner.value), inner.urls)
        return Outcome(values[0].value, None, _joined(inner.urls, values[0].url))

    def _list(self, items: ListOf) -> tuple[Listing | None, Outcome]:
        inner = self.work_off(items.of)
        if inner.value is None:
            return None, inner
        found = self.listing(ListOf(items.kind, inner.value))
        if found is None:
            return None, Outcome(None, ListOf(items.kind, inner.value), inner.urls)
        return found[0], Outcome(inner.value, None, _joined(inner.urls, found[1]))

    def _count(self, form: Count) -> Outcome:
        inner = self.work_off(form.items.of)
        if inner.value is not None:
            told = self._counts.get(Count(ListOf(form.items.kind, inner.value), form.first, form.last))
            if told is not None:
                return Outcome(Name(str(told[0])), None, _joined(inner.urls, told[1]))
        listing, outcome = self._list(form.items)
        if listing is None:
            return outcome
        number = count_members(listing, form.first, form.last)
        return Outcome(None if number is None else Name(str(number)), None, outcome.urls)

    def _intersect(self, form: Intersect) -> Outcome:
        left, first = self._list(form.left)
        if left is None:
            return first
        right, second = self._list(form.right)
        urls = tuple(dict.fromkeys((*first.urls, *second.urls)))
        if right is None:
            return second._replace(urls=urls)
        shared = shared_members(left, right)
        return Outcome(self.resolve(shared[0]) if len(shared) == 1 else None, None, urls)


def _joined(urls: tuple[str, ...], url: str) -> tuple[str, ...]:
    return urls if url in urls else (*urls, url)


def may_be_same(wanted: Name, found: Name) -> bool:
    """Whether two mentions of one name can mean the same: their describing words, where both have one, agree.

    A kind ("film") says nothing about people of one name, so that it agrees with everything.
    """
    if wanted.text != found.text:
        return False
    return not wanted.hint or not found.hint or wanted.hint == found.hint or not _is_person_word(wanted.hint)


def _is_person_word(hint: str) -> bool:
    return not any(hint in relation.domain for relation in RELATIONS.values()) or hint == "person"


def count_members(listing: Listing, first: int | None, last: int | None) -> int | None:
    """Number of members of the years from `first` to `last`; None where years are asked for that the list lacks."""
    if first is None and last is None:
        return len(listing.members)
    years = [member.year for member in listing.members]
    if None in years:
        return None
    return sum(1 for year in years if year is not None and (first or 0) <= year <= (last or 9999))


def shared_members(left: Listing, right: Listing) -> list[Name]:
    """The members that two lists have in common."""
    others = {member.name for member in right.members}
    return list(dict.fromkeys(member.name for member in left.members if member.name in others))


def knowledge_of(pages: Iterable[tuple[str, Reading]]) -> Knowledge:
    """Knowledge of (url, reading) pairs."""
    knowledge = Knowledge()
    for url, reading in pages:
        knowledge.add(reading, url)
    return knowledge


def told_by_one_page(form: LogicalForm, pages: Iterable[tuple[str, Reading]]) -> bool:
    """Whether a single page may answer the form alone: every list, whatever its heading, is read in both directions."""
    for url, reading in pages:
        knowledge = Knowledge(use_lists_backwards=True, use_any_list=True)
        knowledge.add(reading, url)
        if knowledge.work_off(form).value is not None:
            return True
    return False
