"""Checks of questions and descriptions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webdancer.records import QAKind
from webdancer.synth.checks import (
    base_title,
    check_description,
    check_evidence,
    check_question,
    check_rewrite,
    contains_name,
    fold,
    telling_parts,
    tokens,
)
from webdancer.synth.outcomes import DropReason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Who designed the Orsk Bridge?", ["who", "designed", "the", "orsk", "bridge"]),
        ("Café, 1,234 km", ["cafe", "1234", "km"]),
        ("pages 1,23", ["pages", "1", "23"]),
        ("北京 2008年", ["北", "京", "2008", "年"]),
    ],
)
def test_tokens(text, expected):
    assert tokens(text) == expected


@given(st.text())
def test_folding_twice_changes_nothing(text):
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("Where was Ada Lunt born?", "ada lunt", True),
        ("Where was Ada Lunter born?", "Ada Lunt", True),  # a longer word that opens with it gives it away
        ("the Belmarian novelist", "Belmar", True),
        ("the new bridge", "Rid", False),
        ("since 1987", "198", False),
        ("7 works in 17 years", "7", True),
        ("17 works", "7", False),
        ("The river Ornament", "Orn", False),  # short names only as whole words
        ("谁设计了北京大桥？", "北京", True),
        ("anything", "", False),
    ],
)
def test_contains_name(text, name, expected):
    assert contains_name(text, name) is expected


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Ana Velk (architect)", "Ana Velk"),
        ("Ana Velk (architect) - The Wiki", "Ana Velk"),
        ("9. Classes — Python 3.11 documentation", "9. Classes"),
        ("(parenthesis)", "(parenthesis)"),
        ("Orsk-on-Sea", "Orsk-on-Sea"),
    ],
)
def test_base_title(title, expected):
    assert base_title(title) == expected


@pytest.mark.parametrize(
    ("question", "answer", "kind", "expected"),
    [
        ("How many works did the architect of the Orsk Bridge design?", "7", QAKind.COUNT, None),
        ("谁设计了北京大桥？", "李明", QAKind.MULTI_HOP, None),
        ("Name the architect of the Orsk Bridge.", "Ada Lunt", None, DropReason.NOT_A_QUESTION),
        ("Who?", "Ada Lunt", None, DropReason.NOT_A_QUESTION),
        ("Who is named on this page?", "Ada Lunt", None, DropReason.REFERS_TO_PAGE),
        ("Who, according to the text, won?", "Ada Lunt", None, DropReason.REFERS_TO_PAGE),
        ("Who designed the Orsk Bridge?", " .", None, DropReason.EMPTY_ANSWER),
        ("Who designed the Orsk Bridge?", "x" * 101, None, DropReason.LONG_ANSWER),
        ("How many works did she design?", "seven", QAKind.COUNT, DropReason.NOT_A_NUMBER),
        ("How many works did she design after 1990?", "1990", QAKind.COUNT, DropReason.LEAKS_ANSWER),
        ("Which Belmarian city is the largest?", "Belmar", None, DropReason.LEAKS_ANSWER),
    ],
)
def test_check_question(question, answer, kind, expected):
    problem = check_question(question, answer, kind)
    assert (problem and problem[0]) == expected


def test_check_evidence():
    assert check_evidence(["a", "b"], ["a", "b", "c"]) is None
    assert check_evidence(["a", "x"], ["a", "b"]) == (DropReason.EVIDENCE_OUTSIDE, "x")
    assert check_evidence(["a", "a"], ["a", "b"]) == (DropReason.TOO_FEW_PAGES, "1 of 2")
    assert check_evidence(["a"], ["a"], num_pages=1) is None


def test_telling_parts_leave_out_what_the_knowledge_uses_as_a_word():
    knowledge = "The Orsk Bridge is a bridge. Ada Lunt built it."
    assert telling_parts("Orsk Bridge", knowledge) == ["Orsk"]
    assert telling_parts("The Bridge", knowledge) == []


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ("the bridge that was designed by Ada Lunt", None),
        ("a bridge that was designed by Ada Lunt", "does not start with"),
        ("the Orsk Bridge in Velm", "names the entity"),
        ("the bridge near Orsk on the coast", "holds 'Orsk'"),
        ("the bridge designed by Pavel Ros", "holds the answer"),
        ("the bridge", "says too little"),
        ("the city of Velm", "stands in the question already"),
    ],
)
def test_check_description(description, problem):
    found = check_description(
        description,
        entity="Orsk Bridge",
        answer="Pavel Ros",
        question="Who built the Orsk Bridge in the city of Velm?",
        knowledge="The Orsk Bridge is a bridge in the city of Velm.",
    )
    assert (found is None) if problem is None else (found is not None and problem in found)


@pytest.mark.parametrize(
    ("rewritten", "problem"),
    [
        ("Who engineered the bridge that was designed by Ada Lunt?", None),
        ("The bridge that was designed by Ada Lunt was engineered by whom?", None),
        ("Who engineered the bridge that was designed by Ada Lunt", "not_a_question"),
        ("Who engineered the Orsk Bridge, the bridge that was designed by Ada Lunt?", "still names"),
        ("Who engineered the bridge by Ada Lunt?", "does not hold the description"),
        ("Did Pavel Ros engineer the bridge that was designed by Ada Lunt?", "leaks_answer"),
    ],
)
def test_check_rewrite(rewritten, problem):
    found = check_rewrite(
        rewritten, entity="Orsk Bridge", description="the bridge that was designed by Ada Lunt", answer="Pavel Ros"
    )
    assert (found is None) if problem is None else (found is not None and problem in found)
