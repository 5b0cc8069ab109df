"""The reader: what it understands of a page, and what it leaves alone."""

import time

import pytest
from embedded_pages import Embedded

from webdancer.scribe.logical import ListOf, Name
from webdancer.scribe.mentions import base_name, find_date, read_mention, split_sentences
from webdancer.scribe.reader import Member, read_entry, read_page
from webdancer.scribe.reader_patterns import match_sentence
from webdancer.scribe.relations import LISTS, RELATION_OF, RELATIONS

PERSON = """\
# Ana Velk (architect)
Ana Velk (architect)
Born in | Orsk
Spouse | Otto Ghelin (actor)
Ana Velk (born March 3, 1954 in Orsk) is an architect. Her alma mater is the University of Velm. She often signs as A. Velk.
Little is known about the early years. She works for Lorm Systems.
## Works designed
Year | Work
1988 | Orsk Bridge
1991 | Velm Museum of Art
## Selected awards
- Lunt Prize
"""


def facts_of(title: str, text: str) -> set[tuple[str, str, str]]:
    return {(f.relation, f.value.text, f.value.hint) for f in read_page(title, text).facts}


def test_a_page_about_a_person() -> None:
    reading = read_page("Ana Velk (architect)", PERSON)
    assert reading.title == Name("Ana Velk", "architect")
    assert reading.type == "person"
    assert reading.aliases == ("A. Velk",)
    assert {(f.relation, f.value) for f in reading.facts} == {
        ("born_in", Name("Orsk")),
        ("birth_date", Name("3 March 1954")),
        ("occupation", Name("architect")),
        ("studied_at", Name("University of Velm")),
        ("spouse", Name("Otto Ghelin", "actor")),
        ("employer", Name("Lorm Systems")),
    }
    (works,) = reading.lists
    assert (works.kind, works.complete) == ("works_designed", True)
    assert works.members == (Member(Name("Orsk Bridge"), 1988), Member(Name("Velm Museum of Art"), 1991))
    assert works.lines == ("Year | Work", "1988 | Orsk Bridge", "1991 | Velm Museum of Art")


def test_every_fact_keeps_its_line_word_for_word() -> None:
    for fact in read_page("Ana Velk (architect)", PERSON).facts:
        assert fact.line in PERSON


def test_an_incomplete_list_is_marked() -> None:
    (novels,) = read_page("Ana Velk", "## Notable novels\n- The Door (1987)\n- Salt (1990)").lists
    assert (novels.kind, novels.complete, len(novels.members)) == ("novels_written", False, 2)


def test_a_label_of_several_kinds_is_settled_by_the_page() -> None:
    film = "Location | Orsk\nDirector | Ana Velk\nRunning time | 98 minutes"
    museum = "Location | Orsk\nYear of opening | 1954\nThe Velm Museum is a museum in Orsk."
    assert ("filmed_in", "Orsk", "") in facts_of("Night of Velda", film)
    assert facts_of("Velm Museum", museum) == {("located_in", "Orsk", ""), ("opened", "1954", "")}


def test_lengths_are_told_apart_by_their_unit() -> None:
    assert facts_of("River Orn", "Length | 1,245 km") == {("river_length", "1245", "")}
    assert facts_of("Orsk Bridge", "Length | 245 m") == {("bridge_length", "245", "")}


def test_changing_values_carry_their_year() -> None:
    (fact,) = read_page("Orsk", "Population | 12,400 (as of 2019)").facts
    assert (fact.relation, fact.value.text, fact.year) == ("population", "12400", 2019)


@pytest.mark.parametrize(
    "sentence",
    [
        "It was not before 3 March 1999 that death found Ana Velk.",
        "The lectures that Ana Velk sat through as a student were those of Velm University.",
        "In the chair with the name on its back sat Ana Velk while Night of Velda was shot.",
        "Little is known about the early years.",
        "The company was based in a garage.",
        "He was born in the year of the great flood.",
    ],
)
def test_contorted_and_empty_sentences_are_left_alone(sentence: str) -> None:
    assert match_sentence(sentence) == ()


def test_another_subject_than_the_page_is_kept_apart() -> None:
    facts = read_page("Orsk gazette", "Lorm Systems was acquired by Velm Labs in 1999.").facts
    assert [(f.subject.text, f.relation, f.value.text, f.year) for f in facts] == [
        ("Lorm Systems", "acquired_by", "Velm Labs", 1999)
    ]


def test_a_disambiguation_page_names_the_people() -> None:
    reading = read_page("Ana Velk", "# Ana Velk\nAna Velk may refer to:\n- Ana Velk (architect)\n- Ana Velk (novelist)")
    assert reading.namesakes == (Name("Ana Velk", "architect"), Name("Ana Velk", "novelist"))


def test_small_things() -> None:
    assert find_date("on July 9, 1901, it rained") == "9 July 1901"
    assert split_sentences("A. Velk left. orsk-parser is small. It works.") == [
        "A. Velk left.", "orsk-parser is small.", "It works."
    ]  # fmt: skip
    assert base_name("Ana Velk (film director)") == Name("Ana Velk", "film director")
    assert read_mention("the architect Ana Velk") == Name("Ana Velk", "architect")
    assert read_mention("“Sparse Graphs for Gels”") == Name("Sparse Graphs for Gels")
    assert read_mention("a garage near the station") is None
    assert read_entry("Year | Film") is None


@pytest.mark.parametrize(
    "text", ["# " * 5000, "a" * 50_000, "On 3 March 1954, " * 3000, " | " * 5000, "- (1954)\n" * 500]
)
def test_any_text_is_survived_in_time(text: str) -> None:
    started = time.perf_counter()
    read_page("X", text)
    assert time.perf_counter() - started < 2


def test_what_is_read_on_the_embedded_web_is_true(embedded: Embedded) -> None:
    facts = embedded.facts
    truth = {
        (RELATION_OF[relation], facts.entities[subject].name, s.value)
        for (relation, subject), group in facts.of_subject.items()
        if relation in RELATION_OF
        for s in group
    }
    read = {
        (f.relation, f.subject.text, f.value.text)
        for page in embedded.pages.values()
        for f in read_page(page.title, page.text).facts
    }
    assert len(read) > 1500
    assert len(read & truth) / len(read) >= 0.995


def test_most_of_what_pages_state_is_read_but_not_all(embedded: Embedded) -> None:
    num, num_read = 0, 0
    for (relation, subject), group in embedded.facts.of_subject.items():
        known = RELATION_OF.get(relation)
        if known is None or RELATIONS[known].volatile:
            continue
        home = embedded.facts.entities[subject].url
        for s in group:
            if home in s.pages and home in embedded.pages:
                page = embedded.pages[home]
                num += 1
                num_read += any(
                    f.relation == known and f.value.text == s.value for f in read_page(page.title, page.text).facts
                )
    assert 0.9 < num_read / num < 0.999


def test_complete_lists_on_the_embedded_web_are_read_whole(embedded: Embedded) -> None:
    num = 0
    for page in embedded.pages.values():
        for listing in read_page(page.title, page.text).lists:
            holders = embedded.facts.named(listing.holder)
            if listing.complete and len(holders) == 1:
                ((_, members),) = embedded.facts.lists(ListOf(listing.kind, listing.holder))
                names = sorted(embedded.facts.entities[key].name for key, _ in members)
                assert names == sorted(member.name.text for member in listing.members), page.url
                assert LISTS[listing.kind].holder == holders[0].type
                num += 1
    assert num > 150
