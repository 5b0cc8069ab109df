"""The three roles of easy-to-hard rewriting (paper, section 2, E2HQA): pick a name, describe it, put the description in.

A description is a functional relation of another thing that the knowledge names: it holds for one thing only. It is taken
only if no single page of the knowledge then answers the whole question.
"""

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from webdancer.scribe.knowledge import may_be_same, told_by_one_page
from webdancer.scribe.logical import Count, LogicalForm, Lookup, Name, names_in, substitute
from webdancer.scribe.mentions import words_of
from webdancer.scribe.question import Place, parse_noun, parse_question, write_name, write_noun
from webdancer.scribe.reader import Reading, read_page
from webdancer.scribe.relations import ENTITY_TYPES, INVERSE_LISTS, LISTS, RELATION_OF, RELATIONS
from webdancer.scribe.writer import is_short_form

SEARCH_WORDS = {
    "spouse": "married spouse",
    "advisor": "doctoral advisor thesis",
    "employer": "employer works for",
    "founder": "founder founded by",
    "headquarters": "headquarters company based",
    "located_in": "located museum university bridge",
    "filmed_in": "film filmed",
    "set_in": "novel set",
    "recorded_in": "album recorded",
    "formed_in": "band formed",
    "partner_city": "partner city twin",
    "capital": "capital of country",
    "country": "city country",
    "flows_into": "river flows into",
    "on_river": "city on river",
    "crosses": "bridge crosses",
    "named_after": "prize named after",
    "awarded_by": "prize awarded by",
    "code": "paper code repository",
    "implements": "repository implements paper",
    "maintainer": "repository maintainer maintained",
    "funded_by": "funding funded by study",
    "based_on": "film based on novel",
    "director": "film directed by",
    "author": "novel author written by",
    "architect": "architect designed by",
    "producer": "album producer produced",
    "publisher": "novel published by",
    "label": "album label released",
    "performer": "album recorded by band",
    "acquired_by": "company acquired by",
    "studied_at": "studied graduate alma mater",
    "born_in": "born in birthplace",
}
"""Words that stand near a name where a page says that it is the value of a relation."""
UNDOES = {
    "spouse": "spouse",
    "partner_city": "partner_city",
    "code": "implements",
    "implements": "code",
    "capital": "country",
}
"""Relation → the one that leads back from its value to where it came from."""
DEAD_ENDS = frozenset({"film", "album", "museum", "bridge", "prize"})
"""Kinds of things that no functional relation leads to: a chain that starts from one cannot be made longer."""
_CAPITALISED = re.compile(r"(?<![.?!] )(?<!^)\b[A-Z][\w'’-]+(?: (?:of |the )*[A-Z][\w'’-]+)*")


_LOWER = re.compile(r"\b[a-z]\w*")
"""Words that a text also writes small tell nothing of a name: the "bridge" of the Orsk Bridge."""


class Picked(NamedTuple):
    """The name to replace and the query that finds pages about it."""

    entity: str
    query: str


class Described(NamedTuple):
    """A noun phrase for the entity, the names in it, the pages that state it."""

    description: str = ""
    introduced: tuple[str, ...] = ()
    evidence_urls: tuple[str, ...] = ()


def pick(question: str, answer: str, introduced: Sequence[str], rng: Random) -> Picked:
    """Choose the name to replace."""
    form = parse_question(question)
    names = list(names_in(form)) if form else [Name(text) for text in _CAPITALISED.findall(question)]
    names = [n for n in dict.fromkeys(names) if not words_of(n.text) & words_of(answer)]
    if not names:
        return Picked("", "")
    fresh = [n for n in names if n.text in introduced]
    name = rng.choice(fresh or names)
    leading = leading_relations(form, name) if form else []
    words = SEARCH_WORDS[rng.choice(leading)] if leading else ""
    return Picked(name.text, f"{name.text} {name.hint if name.hint not in ENTITY_TYPES else ''} {words}".strip())


def leading_relations(form: LogicalForm, name: Name) -> list[str]:
    """Relations that can lead to the thing of a name: those whose values are of the kind that the question needs there."""
    above, steps = _step_above(form, name)
    kinds = frozenset({name.hint}) if name.hint in ENTITY_TYPES else above
    found = [
        r.id for r in RELATIONS.values() if r.is_entity and not r.volatile and r.range & kinds and r.id in SEARCH_WORDS
    ]
    return [r for r in found if steps > 1 or not INVERSE_LISTS[r]] or found


def _step_above(form: LogicalForm, name: Name) -> tuple[frozenset[str], int]:
    """The kinds of things that the step from a name starts at, and how many steps there are from it to the answer."""
    if isinstance(form, Lookup):
        node, steps = form, 1
        while isinstance(node.of, Lookup):
            node, steps = node.of, steps + 1
        return RELATIONS[node.relation].domain, steps
    sides = (form.items,) if isinstance(form, Count) else (form.left, form.right)
    for side in sides:
        if name in names_in(Count(side)):
            below = side.of
            if isinstance(below, Lookup):
                kinds, steps = _step_above(below, name)
                return kinds, steps + 1
            return frozenset({LISTS[side.kind].holder}), 1
    return frozenset(), 1


class _Candidate(NamedTuple):
    subject: Name
    relation: str
    url: str
    is_own_list: bool
    """Told by a list on the entity's own page, not by the subject's page."""


def describe(question: str, answer: str, entity: str, pages: list[tuple[str, str, str]], rng: Random) -> Described:
    """Describe `entity` from pages given as (url, title, text); empty if they allow no good description."""
    readings = [(url, read_page(title, text)) for url, title, text in pages]
    form = parse_question(question)
    target = next((n for n in names_in(form) if n.text == entity), Name(entity)) if form else Name(entity)
    ordinary = frozenset(_LOWER.findall("\n".join(text for _, _, text in pages)))
    own_words = words_of(entity) - ordinary
    taboo = own_words | (words_of(answer) - ordinary)
    named = {name.text for name in names_in(form)} if form else set()
    candidates = [
        c
        for c in _candidates(target, readings)
        if not words_of(write_name(c.subject)) & taboo
        and c.subject.text not in named
        and c.subject.text not in question
    ]
    rng.shuffle(candidates)
    candidates.sort(key=lambda c: (is_short_form(c.subject), _is_dead_end(c), c.is_own_list))
    for candidate in candidates:
        expr = Lookup(candidate.relation, _shown(candidate))
        if form is not None and _goes_back(form, target, candidate.relation):
            continue
        if form is not None and _is_too_easy(substitute(form, entity, expr), candidate, readings):
            continue
        description = write_noun(expr, rng, _place_of(entity, question))
        if not words_of(description) & own_words and parse_noun(description) == expr:
            return Described(description, (candidate.subject.text,), (candidate.url,))
    return Described()


def _place_of(entity: str, question: str) -> Place:
    """What follows the name in the question."""
    rest = question.rpartition(entity)[2].rstrip(" ?")
    if rest.startswith((" and ", " as well as ")):
        return Place.JOINED
    return Place.INSIDE if rest else Place.LAST


def _is_dead_end(candidate: _Candidate) -> bool:
    """Whether the subject can hardly be described in its turn."""
    return RELATIONS[candidate.relation].domain <= DEAD_ENDS


def _goes_back(form: LogicalForm, name: Name, relation: str) -> bool:
    """Whether the step above the name undoes the relation: the spouse of the spouse of somebody."""
    node: object = form
    while isinstance(node, Lookup):
        if node.of == name:
            return UNDOES.get(relation) == node.relation
        node = node.of
    return False


def _shown(candidate: _Candidate) -> Name:
    """The subject as the description names it: with its kind where the name does not tell it."""
    kinds = RELATIONS[candidate.relation].domain
    kind = min(kinds) if len(kinds) == 1 else ""
    if not candidate.subject.hint and kind in {"film", "novel", "album", "band", "paper", "repository"}:
        return Name(candidate.subject.text, kind)
    return candidate.subject


def _candidates(target: Name, readings: list[tuple[str, Reading]]) -> list[_Candidate]:
    found: list[_Candidate] = []
    aliases = {alias for _, r in readings if may_be_same(target, r.title) for alias in r.aliases}
    for url, reading in readings:
        for fact in reading.facts:
            relation = RELATIONS[fact.relation]
            same = may_be_same(target, fact.value) or fact.value.text in aliases
            if relation.is_entity and not relation.volatile and same and fact.subject == reading.title:
                found.append(_Candidate(fact.subject, fact.relation, url, False))
        if not may_be_same(target, reading.title):
            continue
        for listing in reading.lists:
            for relation_id in dict.fromkeys(RELATION_OF[i] for i in LISTS[listing.kind].inverse if i in RELATION_OF):
                domain = RELATIONS[relation_id].domain
                if relation_id in RELATIONS and LISTS[listing.kind].members <= domain:
                    found += [_Candidate(m.name, relation_id, url, True) for m in listing.members]
    return list(dict.fromkeys(found))


def _is_too_easy(form: LogicalForm, candidate: _Candidate, readings: list[tuple[str, Reading]]) -> bool:
    """Whether one page would answer the new question alone.

    Where the entity's own page is not among the knowledge, relations that such pages list the other way round are refused
    as long as the question has no other step in between.
    """
    if told_by_one_page(form, readings):
        return True
    steps = 0
    node = form
    while isinstance(node, Lookup):
        steps += 1
        node = node.of  # type: ignore[assignment]
    return steps == 2 and (bool(INVERSE_LISTS[candidate.relation]) or candidate.is_own_list)


def rewrite(question: str, entity: str, description: str) -> str:
    """The question with the description in the place of the entity and of any describing word before it."""
    form = parse_question(question)
    expr = parse_noun(description)
    hint = next((n.hint for n in names_in(form) if n.text == entity), "") if form else ""
    wordings = [f"the {hint} {entity}"] if hint else []
    wordings += [f"the {entity}", entity]
    for wording in wordings:
        for match in re.finditer(rf"(?<!\w){re.escape(wording)}(?!\w)", question):
            changed = question[: match.start()] + description + question[match.end() :]
            if form is None or expr is None or parse_question(changed) == substitute(form, entity, expr):
                return changed
    return re.sub(rf"(?:\bthe )?(?<!\w){re.escape(entity)}(?!\w)", lambda _: description, question, count=1)
