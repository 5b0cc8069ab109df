"""The planning exercise of the base model: work a question off step by step, each step's finding given by the user.

The assistant says what it learnt and what it needs next, in plain sentences: no tool, no call, no tag. A question of
several steps, of a number, or of what stands in two lists is made from facts and lists that the reader found on the web's pages.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from webdancer.agent.cuts import cut_evidence
from webdancer.agent.tools import format_report_brief
from webdancer.pipeline.base_web import Document, Turn, Web
from webdancer.scribe.claims import HEDGES, NOUNS
from webdancer.scribe.knowledge import Knowledge, shared_members
from webdancer.scribe.logical import Count, Expr, Intersect, ListOf, LogicalForm, Lookup, Name
from webdancer.scribe.question import write_goal, write_list, write_noun, write_question, write_years
from webdancer.scribe.reader import Fact, Listing, Reading
from webdancer.scribe.relations import LISTS, RELATIONS
from webdancer.scribe.statements import state
from webdancer.scribe.summariser import summarise
from webdancer.scribe.thoughts import compare_lists

MAX_EVIDENCE = 300
_MAX_STEPS = 8
_FIRST = ("First I need {what}.", "I need {what} first.")
_NEXT = ("Now I need {what}.", "Next I need {what}.")
_ANSWER = ("The answer is {answer}.", "So the answer is {answer}.")


class _Found(NamedTuple):
    """What the user reports of one step: the whole report, its summary sentence, and the entries of the list in it."""

    report: str
    summary: str
    entries: tuple[str, ...] = ()


def claim_of(fact: Fact) -> str:
    """What a post says of a fact, without its hedge."""
    return f"the {NOUNS[fact.relation]} of {fact.subject.text} is {fact.value.text}"


def plan(web: Web, rng: Random) -> Document:
    """One question worked off; empty where chance led to none."""
    form = _question(web, rng)
    if form is None:
        return []
    knowledge = Knowledge(use_lists_backwards=True)
    turns = [Turn("user", f"Question: {write_question(form, rng)}")]
    summary, lists = "", list[Sequence[str]]()
    for _ in range(_MAX_STEPS):
        outcome = knowledge.work_off(form)
        if outcome.value is not None:
            answer, compared = outcome.value.text, ""
            if isinstance(form, Intersect):
                if len(lists) < 2 or any(answer not in entries for entries in lists):  # cut off
                    return []
                compared = compare_lists(lists[-1], answer)
            turns.append(Turn("assistant", _sentences(summary, compared, rng.choice(_ANSWER).format(answer=answer))))
            return turns
        found = _find(outcome.missing, form, web, knowledge, rng)
        if found is None or outcome.missing is None:
            return []
        need = rng.choice(_NEXT if summary else _FIRST).format(what=_noun(outcome.missing, form))
        turns.append(Turn("assistant", _sentences(summary, need)))
        query = _query(outcome.missing)
        if query and rng.random() < 0.3:
            turns += [Turn("user", "Query?"), Turn("assistant", query)]
        turns.append(Turn("user", found.report))
        summary = found.summary
        lists += [found.entries] if found.entries else []
    return []


def _sentences(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _noun(missing: Lookup | ListOf, form: LogicalForm) -> str:
    """What is missing as a noun phrase, with the years where they count."""
    if isinstance(missing, Lookup):
        return write_noun(missing, Random(0))
    return write_list(missing, Random(0)) + (write_years(form) if isinstance(form, Count) else "")


def _query(missing: Lookup | ListOf) -> str:
    if isinstance(missing, ListOf) or missing.relation not in NOUNS or not isinstance(missing.of, Name):
        return ""
    return f"{missing.of.text} {missing.of.hint} {NOUNS[missing.relation]}".replace("  ", " ")


def _find(
    missing: Lookup | ListOf | None, form: LogicalForm, web: Web, knowledge: Knowledge, rng: Random
) -> _Found | None:
    """Look a step up on the web, and take it up into the knowledge; now and then it is a post that tells it."""
    if missing is None or not isinstance(missing.of, Name):
        return None
    of = missing.of.text
    if isinstance(missing, Lookup):
        facts = [fact for fact in web.by_subject.get(of, ()) if fact.relation == missing.relation]
        if not facts:
            return None
        knowledge.add_fact(facts[0], "page")
        if missing.relation in NOUNS and rng.random() < 0.3:
            claim = claim_of(facts[0])
            return _Found(f"{rng.choice(HEDGES)} {claim}.", f"A post says that {claim}.")
        summary = state(facts[0].relation, facts[0].subject, facts[0].value, facts[0].year)
        return _Found(f"Summary: {summary}", summary)
    listing = next((x for x in web.lists if x.kind == missing.kind and x.holder.text == of), None)
    if listing is None:
        return None
    knowledge.add(Reading(listing.holder, None, (), (listing,)), "page")
    years = (form.first, form.last) if isinstance(form, Count) else (None, None)
    return report_list(listing, *years)


def report_list(listing: Listing, first: int | None, last: int | None) -> _Found:
    """What a page's summary says of a list, with the years that count."""
    text = "\n".join((listing.heading, *listing.lines))
    form = Count(ListOf(listing.kind, listing.holder), first, last)
    found = summarise(write_goal(form, Random(0)), listing.holder.text, text)
    evidence = cut_evidence(found.evidence, max_chars=MAX_EVIDENCE)
    entries = tuple(member.name.text for member in listing.members if member.name.text in evidence)
    return _Found(format_report_brief(evidence, found.summary), found.summary, entries)


def _question(web: Web, rng: Random) -> LogicalForm | None:
    draw = rng.random()
    if draw < 0.45:
        return _chain(web, rng)
    if not web.lists:
        return None
    if draw < 0.6:
        return _count(web, rng)
    return _intersection(web, rng)


def _chain(web: Web, rng: Random) -> Lookup | None:
    """Facts that follow from each other, from a name on."""
    fact = rng.choice(web.facts)
    steps = [fact]
    while len(steps) < 4 and RELATIONS[fact.relation].is_entity and rng.random() < 0.85:
        seen = {step.subject.text for step in steps}
        onward = [f for f in web.by_subject.get(fact.value.text, ()) if f.value.text not in seen]
        if not onward:
            break
        fact = rng.choice(onward)
        steps.append(fact)
    if any(RELATIONS[step.relation].volatile for step in steps):
        return None
    form = Lookup(steps[0].relation, steps[0].subject)
    for step in steps[1:]:
        form = Lookup(step.relation, form)
    return form


def _described(name: Name, web: Web, rng: Random, *, max_steps: int) -> Expr:
    """A thing by its name, or by what leads to it."""
    facts: Sequence[Fact] = [f for f in web.by_value.get(name.text, ()) if not RELATIONS[f.relation].volatile]
    if not facts or max_steps == 0 or rng.random() < 0.3:
        return name
    fact = rng.choice(facts)
    return Lookup(fact.relation, _described(fact.subject, web, rng, max_steps=max_steps - 1))


def _count(web: Web, rng: Random) -> Count:
    listing = rng.choice(web.lists)
    first, last = draw_years(listing, rng)
    return Count(ListOf(listing.kind, _described(listing.holder, web, rng, max_steps=2)), first, last)


def draw_years(listing: Listing, rng: Random) -> tuple[int | None, int | None]:
    """Years that bound a list, or None."""
    years = sorted(member.year for member in listing.members if member.year)
    first = rng.choice(years) if years and rng.random() < 0.3 else None
    last = rng.choice(years) if years and rng.random() < 0.3 else None
    if first and last and first > last:
        first, last = last, first
    return first, last


def _intersection(web: Web, rng: Random) -> Intersect | None:
    left = rng.choice(web.lists)
    others = [x for member in left.members for x in web.listing(member.name.text) if x.holder != left.holder]
    if not others:
        return None
    right = rng.choice(others)
    kinds = LISTS[left.kind].members & LISTS[right.kind].members
    if not kinds or len(shared_members(left, right)) != 1:
        return None
    lists = [ListOf(x.kind, _described(x.holder, web, rng, max_steps=1)) for x in (left, right)]
    return Intersect(min(kinds), lists[0], lists[1])
