"""The question grammar: every form comes back from its English, and nothing else is read as a question."""

import re
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webdancer.scribe.logical import Count, Expr, Intersect, ListOf, LogicalForm, Lookup, Name, depth, substitute
from webdancer.scribe.question import parse_goal, parse_noun, parse_question, write_goal, write_noun, write_question
from webdancer.scribe.question_shapes import COUNTS_OF_YEARS, NOUNS
from webdancer.scribe.relations import LISTS, RELATION_OF, RELATIONS

NAMES = {
    "person": [Name("Ana Velk"), Name("Ana Velk", "film director"), Name("René Glikensky", "architect")],
    "river": [Name("River Orn")],
    "bridge": [Name("Orsk Bridge"), Name("Orsk Viaduct")],
    "university": [Name("University of Velm"), Name("Velm Institute")],
    "film": [Name("Night of Velda"), Name("Night of Velda", "film")],
    "paper": [Name("Sparse Graphs beyond Open-Ended Markets", "paper"), Name("Lazy Filters under Layered-Soft Gels")],
    "repository": [Name("orsk-parser"), Name("orsk-parser", "repository")],
    "prize": [Name("Lunt Prize")],
}
FILTERED = {p.path[0] for p in COUNTS_OF_YEARS}


@st.composite
def expressions(draw: st.DrawFn, kinds: frozenset[str], steps: int) -> Expr:
    """A description of a thing of one of the `kinds`, of up to `steps` steps."""
    leading = [r for r in RELATIONS.values() if r.is_entity and r.range & kinds]
    if steps == 0 or not leading or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(NAMES.get(draw(st.sampled_from(sorted(kinds))), [Name("Grey Harbour")])))
    relation = draw(st.sampled_from(leading))
    return Lookup(relation.id, draw(expressions(relation.domain, steps - 1)))


@st.composite
def forms(draw: st.DrawFn) -> LogicalForm:
    match draw(st.sampled_from(["lookup", "count", "intersect"])):
        case "lookup":
            relation = draw(st.sampled_from(list(RELATIONS.values())))
            return Lookup(relation.id, draw(expressions(relation.domain, 5)))
        case "count":
            kind = draw(st.sampled_from(list(LISTS.values())))
            years = draw(st.sampled_from([(None, None), (1951, None), (None, 1970), (1950, 1970)]))
            items = ListOf(kind.id, draw(expressions(frozenset({kind.holder}), 5)))
            return Count(items, *(years if kind.id in FILTERED else (None, None)))
        case _:
            pairs = [(a, b) for a in LISTS.values() for b in LISTS.values() if a.members & b.members]
            left, right = draw(st.sampled_from(pairs))
            member = draw(st.sampled_from(sorted(left.members & right.members)))
            sides = [ListOf(k.id, draw(expressions(frozenset({k.holder}), 3))) for k in (left, right)]
            return Intersect(member, *sides)


@settings(max_examples=400, deadline=None)
@given(forms(), st.integers(0, 2**32))
def test_a_written_question_is_read_as_what_was_meant(form: LogicalForm, seed: int) -> None:
    assert parse_question(write_question(form, Random(seed))) == form


@settings(max_examples=200, deadline=None)
@given(forms(), st.integers(0, 2**32))
def test_a_written_goal_is_read_as_what_was_meant(form: LogicalForm, seed: int) -> None:
    if not isinstance(form, Intersect):
        assert parse_goal(write_goal(form, Random(seed))) == form


@pytest.mark.parametrize("phrase", NOUNS, ids=lambda phrase: phrase.fill("…"))
def test_every_noun_phrase_can_be_read(phrase) -> None:  # type: ignore[no-untyped-def]
    form = parse_noun(phrase.fill("Grey Harbour"))
    for relation in phrase.path:
        assert isinstance(form, Lookup)
        assert form.relation == relation
        form = form.of
    assert form == Name("Grey Harbour")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Where was Ana Velk born?", Lookup("born_in", Name("Ana Velk"))),
        ("In which country was the architect Ana Velk born?",
         Lookup("country", Lookup("born_in", Name("Ana Velk", "architect")))),
        ("How many films did the director of the film Night of Velda direct after 1990?",
         Count(ListOf("films_directed", Lookup("director", Name("Night of Velda", "film"))), 1991, None)),
        ("How many people won the Lunt Prize from 1980 to 1990?", Count(ListOf("laureates", Name("Lunt Prize")), 1980, 1990)),
        ("How many novels by Ana Velk were published before 2000?",
         Count(ListOf("novels_written", Name("Ana Velk")), None, 1999)),
        ("Which film directed by Ana Velk features Otto Ghelin in its cast?",
         Intersect("film", ListOf("films_directed", Name("Ana Velk")), ListOf("film_appearances", Name("Otto Ghelin")))),
        ("Which person is a member of Grey Harbour and has won the Lunt Prize?",
         Intersect("person", ListOf("members", Name("Grey Harbour")), ListOf("laureates", Name("Lunt Prize")))),
        ("Who wrote the novel on which Night of Velda is based?", Lookup("author", Lookup("based_on", Name("Night of Velda")))),
    ],
)  # fmt: skip
def test_questions_written_by_hand(text: str, form: LogicalForm) -> None:
    assert parse_question(text) == form


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "Where was Ana Velk born",
        "Where was she born?",
        "Where was the birthplace of born?",
        "Who directed the population of Orsk?",
        "How many films did Ana Velk?",
        "Which film directed by Ana Velk?",
        "奥斯克有多少居民？",
        "Where was " + "the spouse of " * 400 + "Ana Velk born?",
    ],
)
def test_other_texts_are_no_questions(text: str) -> None:
    assert parse_question(text) is None


def test_a_kind_that_does_not_fit_is_no_reading() -> None:
    assert parse_question("Who was the architect of the capital of Belmar?") is None


def test_hostile_texts_do_not_hold_the_parser_up() -> None:
    started = time.perf_counter()
    for text in (
        "Which film " + "and was directed by " * 90 + "X?",
        "Where was " + "the capital of " * 120 + "X born?",
    ):
        parse_question(text)
    assert time.perf_counter() - started < 2


def test_substitute_and_depth() -> None:
    form = parse_question("Where was the director of the film Night of Velda born?")
    assert form is not None
    assert depth(form) == 2
    deeper = substitute(form, "Night of Velda", Lookup("released", Name("X")))
    assert deeper == Lookup("born_in", Lookup("director", Lookup("released", Name("X"))))


def test_names_of_bridges_and_rivers_take_their_article() -> None:
    assert write_noun(Name("Orsk Bridge"), Random(0)) == "the Orsk Bridge"
    assert write_noun(Name("River Orn"), Random(0)) == "the River Orn"
    assert write_noun(Name("Velm University"), Random(0)) == "Velm University"
    assert parse_noun("the Orsk Bridge") == Name("Orsk Bridge")


def test_every_relation_of_the_fact_graph_has_one_relation_here() -> None:
    assert RELATION_OF["museum_architect"] == RELATION_OF["bridge_architect"] == "architect"
    assert sum(len(r.covers) for r in RELATIONS.values()) == len(RELATION_OF)


@pytest.mark.parametrize("seed", range(12))
def test_years_cannot_belong_to_a_clause_inside_of_the_question(seed: int) -> None:
    """ "…born in the city in which the album X was recorded after 1860": the birth or the recording?"""
    for kind in sorted(FILTERED - {"laureates"}):
        holder = LISTS[kind].holder
        inner = {"person": "director", "company": "publisher", "city": "recorded_in", "band": "performer",
                 "river": "on_river", "paper": "implements"}[holder]  # fmt: skip
        text = write_question(Count(ListOf(kind, Lookup(inner, Name("Grey Harbour"))), 1861, None), Random(seed))
        assert text.startswith("After 1860, ") or re.search(
            r" (?:were (?:released|published|opened|submitted|born)|came out|publish|release|acquire) after 1860\?$",
            text,
        ), text


@pytest.mark.parametrize("seed", range(12))
def test_a_second_condition_cannot_belong_to_a_clause_of_the_first(seed: int) -> None:
    left = ListOf("members", Lookup("performer", Name("Bright Echoes", "album")))
    clause = ListOf("natives", Lookup("recorded_in", Name("Bright Echoes", "album")))
    right = ListOf("laureates", Name("Lunt Prize"))
    for first in (left, clause):
        text = write_question(Intersect("person", first, right), Random(seed))
        before_and = text.partition(" and ")[0] if " and " in text else ""
        assert not re.search(r"\b(?:where|which|that)\b.*\bEchoes\b", before_and), text


def test_what_other_words_follow_does_not_end_with_a_verb() -> None:
    form = Lookup("country", Lookup("born_in", Lookup("spouse", Name("Ana Velk"))))
    texts = {write_question(form, Random(seed)) for seed in range(60)}
    assert len(texts) > 5
    assert not [text for text in texts if re.search(r"\b(?:born|married) (?:lie|is|was)\b", text)]
