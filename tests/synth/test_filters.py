"""Duplicates, common answers and the aim: who is kept, and the reason where one is not."""

from fixtures import MemoryWeb, ScriptedModel, make_page

from webdancer.config import SynthSettings
from webdancer.errors import ModelError
from webdancer.records import QA, QAKind
from webdancer.synth.filters import Selector, answer_from_one_search, is_easy
from webdancer.synth.outcomes import Candidate, DropReason, GroupOutcome
from webdancer.web.protocol import ToolFailure

LUNT = make_page("http://w.example/Ada_Lunt", "Ada Lunt", "Ada Lunt was born in Velm.")
BORN = QA(id="q", question="Where was Ada Lunt born?", answer="Velm", kind=QAKind.MULTI_HOP, evidence_urls=("a", "b"))


def select(*questions, aim=100, share=1.0, kind=QAKind.MULTI_HOP, reason=None):
    """Reasons of (question, answer, evidence) triples that come one after the other; None where kept."""
    selector = Selector({kind: aim}, SynthSettings(max_answer_share=share))
    for number, (question, answer, evidence) in enumerate(questions):
        qa = QA(id=str(number), question=question, answer=answer, kind=kind, evidence_urls=tuple(evidence))
        candidate = Candidate(qa=qa, reason=reason)
        selector.add([GroupOutcome(id=f"g{number}", kind=kind, urls=tuple(evidence), candidates=(candidate,))])
    dropped = {qa.id: qa.reason for qa in selector.dropped}
    assert len(selector.kept) == selector.num_kept(kind)
    assert sorted([*dropped, *(qa.id for qa in selector.kept)]) == sorted(map(str, range(len(questions))))
    return [dropped.get(str(number)) for number in range(len(questions))]


def test_the_same_words_are_a_duplicate_whatever_the_answer():
    first, second = ("Who designed the Orsk Bridge?", "Ada", "ab"), ("who designed the ORSK bridge ?", "Pavel", "cd")
    assert select(first, second) == [None, DropReason.DUPLICATE]


def test_the_same_answer_from_the_same_pages_is_a_duplicate():
    first, second = ("Who built the Orsk Bridge?", "Ada Lunt", "ab"), ("Whose work is it?", "ada lunt", "ba")
    assert select(first, second) == [None, DropReason.DUPLICATE]
    assert select(first, ("Whose work is it?", "Ada Lunt", "bc")) == [None, None]
    assert select(first, ("Whose work is it?", "Pavel Ros", "ab")) == [None, None]


def test_nearly_the_same_words_are_a_near_duplicate_only_with_the_same_answer_and_a_common_page():
    # ten words each, nine of them common: Jaccard 9 / 11 = 0.82
    first = "in which small old town was the famous architect born?"
    second = "in which small old town was the famous architect raised?"
    assert select((first, "Velm", "ab"), (second, "Velm", "bc")) == [None, DropReason.NEAR_DUPLICATE]
    assert select((first, "Velm", "ab"), (second, "Velm", "cd")) == [None, None]
    assert select((first, "Velm", "ab"), (second, "Orsk", "bc")) == [None, None]
    other = "in which small old town was the clever architect raised?"  # 8 / 12 = 0.67
    assert select((first, "Velm", "ab"), (other, "Velm", "bc")) == [None, None]


def test_one_set_of_pages_answers_four_questions_at_most():
    questions = [(f"What is fact {number}?", f"Value {number}", "ab") for number in range(5)]
    assert select(*questions, ("What else?", "Other", "abc")) == [None] * 4 + [DropReason.PAGES_TOO_COMMON, None]


def test_one_answer_gets_its_share_of_the_aim_and_at_least_two_places():
    questions = [(f"How many are in list {number}?", "7", [str(number), "x"]) for number in range(4)]
    assert select(*questions, aim=50, share=0.04) == [None, None] + [DropReason.ANSWER_TOO_COMMON] * 2
    assert select(*questions, aim=10, share=0.04) == [None, None] + [DropReason.ANSWER_TOO_COMMON] * 2


def test_what_comes_after_the_aim_is_surplus():
    questions = [(f"Who is number {number}?", f"Name {number}", [str(number), "x"]) for number in range(3)]
    assert select(*questions, aim=2) == [None, None, DropReason.SURPLUS]


def test_a_candidate_with_a_reason_takes_no_place():
    question = ("Who built the Orsk Bridge?", "Ada Lunt", "ab")
    assert select(question, reason=DropReason.LEAKS_ANSWER) == [DropReason.LEAKS_ANSWER]


async def easy(*replies, web=None):
    model = ScriptedModel(replies)
    found = await is_easy(model, web or MemoryWeb({LUNT.url: LUNT}), BORN, SynthSettings(max_reasks=0))
    return found, len(model.calls)


async def test_easy_is_what_memory_or_one_search_answers():
    assert await easy('{"answer": "velm."}') == ((DropReason.EASY_CLOSED_BOOK, "velm."), 1)
    assert await easy('{"answer": "Orsk"}', '{"answer": "Velm"}') == ((DropReason.EASY_ONE_SEARCH, "Velm"), 2)
    assert await easy('{"answer": "Orsk"}', '{"answer": "Tursk"}') == (None, 2)


async def test_an_answerer_that_answers_nonsense_does_not_make_a_question_easy():
    assert await easy("I do not know.", "No idea.") == (None, 2)


async def test_where_the_check_fails_the_question_is_not_called_hard():
    assert await easy(ModelError("503")) == ((DropReason.EASY_CHECK_FAILED, "503"), 1)
    broken = MemoryWeb({}, broken_queries={BORN.question: ToolFailure("quota spent")})
    assert await easy('{"answer": "Orsk"}', web=broken) == ((DropReason.EASY_CHECK_FAILED, "quota spent"), 1)


async def test_one_search_shows_the_results_as_the_agent_sees_them():
    model, web = ScriptedModel(['{"answer": " Velm "}']), MemoryWeb({LUNT.url: LUNT})
    assert await answer_from_one_search(model, web, BORN.question) == "Velm"
    assert web.searches == [(BORN.question, 10, None)]
    prompt = model.calls[0][0][0].content
    assert prompt.startswith("Role: answerer\n")
    assert "## Web Results\n1. [Ada Lunt](http://w.example/Ada_Lunt)\nAda Lunt was born in Velm." in prompt
