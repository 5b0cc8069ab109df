"""Rewriting a simple question: each step's checks, other tries, and where a chain ends."""

import json
import re

from fixtures import MemoryWeb, RuleModel, make_page

from webdancer.config import SynthSettings
from webdancer.records import QAKind
from webdancer.synth.easy_to_hard import Web, gather_knowledge, write_hard_candidates
from webdancer.synth.groups import PageGroup
from webdancer.synth.outcomes import DropReason

LUNT = make_page("http://w.example/Ada_Lunt", "Ada Lunt", "Ada Lunt is an architect. Ada Lunt was born in Velm.")
BRIDGE = make_page("http://w.example/Orsk_Bridge", "Orsk Bridge", "The Orsk Bridge was designed by Ada Lunt.")
RIVER = make_page("http://w.example/Tane", "Tane", "The longest bridge over the Tane is the Orsk Bridge.")
HALL = make_page("http://w.example/Moss_Hall", "Moss Hall", "The Moss Hall was designed by Ada Lunt.")
LONG = make_page("http://w.example/Everything", "Everything", "Ada Lunt and all else. " * 1000)
PAGES = {page.url: page for page in (RIVER, BRIDGE, LUNT, LONG)}

SIMPLE = {
    "questions": [{"question": "In which city was Ada Lunt born?", "answer": "Velm", "evidence_urls": [LUNT.url]}]
}
DESCRIPTIONS = {
    "Ada Lunt": ("the architect of the Orsk Bridge", ["Orsk Bridge"], [BRIDGE.url]),
    "Orsk Bridge": ("the longest bridge over the Tane", ["Tane"], [RIVER.url]),
}


def play(**overrides):
    """A model with a rule for each role; an override takes the number of the role's call and the prompt."""
    num_calls: dict[str, int] = {}

    def rule(messages):
        text = messages[0].content
        role = text.splitlines()[0].removeprefix("Role: ")
        num_calls[role] = num_calls.get(role, 0) + 1
        if role in overrides:
            reply = overrides[role](num_calls[role], text)
            if reply is not None:
                return reply if isinstance(reply, str) else json.dumps(reply)
        entity = re.search(r"<entity>\n(.*)\n</entity>", text)
        question = re.findall(r"<question>\n(.*)\n</question>", text)[-1:]
        match role:
            case "writer":
                return json.dumps(SIMPLE)
            case "picker":
                name = next((name for name in DESCRIPTIONS if name in question[0]), "")
                return json.dumps({"entity": name, "query": name})
            case "describer":
                keys = ("description", "introduced", "evidence_urls")
                return json.dumps(dict(zip(keys, DESCRIPTIONS[entity[1]], strict=True)))
            case "rewriter":
                new = DESCRIPTIONS[entity[1]][0]
                return json.dumps({"question": re.sub(f"(the )?{entity[1]}", new, question[0])})

    model = RuleModel(rule)
    model.num_by_role = num_calls
    return model


async def harden(*, rewrites=(2, 2), web=None, max_reasks=1, **overrides):
    model = play(**overrides)
    web = web or MemoryWeb(PAGES)
    settings = SynthSettings(min_rewrites=rewrites[0], max_rewrites=rewrites[1], max_reasks=max_reasks)
    group = PageGroup("easy_to_hard-00000", QAKind.EASY_TO_HARD, (LUNT.url,))
    found = await write_hard_candidates(model, model, Web(web, web), group, LUNT, settings=settings, seed=5)
    assert len(found) == 1
    return found[0], model


async def test_two_rewrites_replace_a_name_each_and_keep_the_answer():
    candidate, _ = await harden()
    assert candidate.reason is None
    assert [qa.question for qa in (*candidate.lineage, candidate.qa)] == [
        "In which city was Ada Lunt born?",
        "In which city was the architect of the Orsk Bridge born?",
        "In which city was the architect of the longest bridge over the Tane born?",
    ]
    assert candidate.qa.evidence_urls == (RIVER.url, BRIDGE.url, LUNT.url)
    assert [qa.num_rewrites for qa in (*candidate.lineage, candidate.qa)] == [0, 1, 2]
    assert [candidate.lineage[1].parent_id, candidate.qa.parent_id] == [qa.id for qa in candidate.lineage]
    assert {qa.answer for qa in (*candidate.lineage, candidate.qa)} == {"Velm"}


async def test_the_picker_is_told_what_the_last_rewrite_introduced():
    shown = []
    await harden(picker=lambda number, text: shown.append(re.search(r"<introduced>\n(.*?)\n?</introduced>", text)[1]))
    assert shown == ["", "Orsk Bridge"]


async def test_a_chain_that_cannot_go_on_ends_at_the_depth_reached():
    candidate, _ = await harden(rewrites=(4, 5))  # no name is left after the second
    assert candidate.reason is DropReason.TOO_FEW_REWRITES
    assert candidate.qa.num_rewrites == 2
    assert "rewrite 3 of" in candidate.detail
    assert "no name to replace" in candidate.detail


async def test_a_failed_step_is_tried_again_with_another_seed():
    bad = {"description": "the architect of Lunt Hall", "introduced": ["Lunt Hall"], "evidence_urls": [BRIDGE.url]}
    candidate, model = await harden(rewrites=(1, 1), describer=lambda number, text: bad if number == 1 else None)
    assert candidate.reason is None
    assert model.num_by_role == {"writer": 1, "picker": 2, "describer": 2, "rewriter": 1}


async def why(**overrides) -> str:
    """The detail of a chain whose every try fails."""
    candidate, _ = await harden(rewrites=(1, 1), **overrides)
    assert candidate.reason is DropReason.TOO_FEW_REWRITES
    assert candidate.lineage == ()
    return candidate.detail


async def test_every_step_has_its_checks():
    def describes(text, urls=(BRIDGE.url,)):
        return lambda *_: {"description": text, "introduced": [], "evidence_urls": urls}

    assert "not in the question" in await why(picker=lambda *_: {"entity": "Orsk Bridge", "query": "x"})
    assert "allows no description" in await why(describer=describes(""))
    assert "holds 'Lunt'" in await why(describer=describes("the architect of Lunt Hall"))
    assert "holds the answer" in await why(describer=describes("the architect from Velm itself"))
    assert "evidence_outside" in await why(describer=describes("the architect of the big bridge", ["http://x.example"]))
    assert "names no page" in await why(describer=describes("the architect of the big bridge", []))
    assert "still names" in await why(
        rewriter=lambda *_: {"question": "Where was Ada Lunt, the architect of the Orsk Bridge, born?"}
    )
    assert "no name to replace" in await why(picker=lambda *_: {"entity": "", "query": ""})


async def test_the_answer_is_never_replaced():
    written = {"question": "Who taught the sister of Ada Lunt?", "answer": "Ada Lunt Senior", "evidence_urls": []}
    assert "the answer or a part of it" in await why(
        writer=lambda *_: {"questions": [written]}, picker=lambda *_: {"entity": "Ada Lunt", "query": "Ada Lunt"}
    )


async def test_a_description_does_not_bring_back_a_name_that_was_replaced():
    back = {"description": "the bridge designed by Ada Lunt", "introduced": ["Ada Lunt"], "evidence_urls": [BRIDGE.url]}
    candidate, _ = await harden(rewrites=(2, 2), describer=lambda number, text: None if number == 1 else back)
    assert candidate.reason is DropReason.TOO_FEW_REWRITES
    assert "brings back 'Ada Lunt'" in candidate.detail


async def test_a_question_that_one_page_answers_is_rewritten_once_more_if_it_may():
    own = ("the architect of the renowned Orsk Bridge", ["Orsk Bridge"], [LUNT.url])

    def from_her_own_page(number, text):
        return dict(zip(("description", "introduced", "evidence_urls"), own, strict=True)) if number == 1 else None

    def rewrite(number, text):
        return {"question": f"In which city was {own[0]} born?"} if number == 1 else None

    candidate, _ = await harden(rewrites=(1, 1), describer=from_her_own_page, rewriter=rewrite)
    assert candidate.reason is DropReason.TOO_FEW_PAGES
    for most in (2, 3, 4):
        candidate, _ = await harden(rewrites=(1, most), describer=from_her_own_page, rewriter=rewrite)
        assert candidate.reason is None
        assert candidate.qa.num_rewrites == 2
        assert candidate.qa.evidence_urls == (RIVER.url, LUNT.url)


async def test_a_rewrite_that_leads_nowhere_is_taken_back_and_done_otherwise():
    dead = {"description": "the architect of the Moss Hall", "introduced": ["Moss Hall"], "evidence_urls": [HALL.url]}

    def describe(number, text):
        if "<entity>\nMoss Hall" in text:
            return {"description": ""}
        return dead if number == 1 else None

    def rewrite(number, text):
        return {"question": "In which city was the architect of the Moss Hall born?"} if number == 1 else None

    def pick(number, text):
        return {"entity": "Moss Hall", "query": "Moss Hall"} if "Moss Hall born" in text else None

    web = MemoryWeb({**PAGES, HALL.url: HALL})
    candidate, model = await harden(describer=describe, rewriter=rewrite, picker=pick, web=web)
    assert candidate.reason is None
    assert candidate.qa.question == "In which city was the architect of the longest bridge over the Tane born?"
    # one rewrite, one dead end found out once and not asked about again, then two rewrites
    assert model.num_by_role == {"writer": 1, "picker": 5, "describer": 4, "rewriter": 3}


async def test_knowledge_for_a_rewrite_that_others_follow_is_what_further_pages_lead_to():
    web = MemoryWeb({**PAGES, HALL.url: HALL})
    steps = {BRIDGE.url: 2, HALL.url: 0}
    for num_left, expected in ((0, {"Orsk Bridge", "Moss Hall"}), (1, {"Orsk Bridge"}), (2, {"Orsk Bridge"})):
        pages = await gather_knowledge(Web(web, web, steps), "Ada Lunt", "Ada Lunt", num_left=num_left)
        assert {page.title for page in pages} == {"Ada Lunt", *expected}
    pages = await gather_knowledge(Web(web, web, steps), "Ada Lunt", "Ada Lunt", num_left=3)  # none will do: take all
    assert len(pages) == 3


async def test_knowledge_is_what_mentions_the_entity_its_own_page_first_and_nothing_too_long_to_be_shown():
    web = MemoryWeb({**PAGES, "http://w.example/gone": make_page("http://w.example/moved", "Ada", "Nothing.")})
    pages = await gather_knowledge(Web(web, web), "Ada Lunt", "the architect Ada Lunt")
    assert [page.title for page in pages] == ["Ada Lunt", "Orsk Bridge"]
