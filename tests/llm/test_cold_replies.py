"""Prompts filled with real pages, and the answers of a reader who saw nothing else: each parses and passes its stage's checks.

`fixtures_llm/cold_replies.json` holds, for every role, what its prompt was filled with and the reply, in English and Chinese.
"""

import json
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest
from fixtures import MemoryWeb, ScriptedModel

from webdancer.agent.format import Turn, parse_turn
from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.agent.tools import PageReport, Toolbox
from webdancer.agent.transcript import Transcript
from webdancer.config import AgentSettings, FunnelSettings, SynthSettings
from webdancer.judge.llm_judge import judge
from webdancer.llm.prompts import fill_prompt, format_pages, load_prompt
from webdancer.llm.structured import find_object
from webdancer.records import QA, CotMode, Page, QAKind, Status, Step, Trajectory, VerdictStage
from webdancer.synth.checks import (
    check_description,
    check_evidence,
    check_question,
    check_rewrite,
    contains_name,
    told_answer,
)
from webdancer.synth.crawl_qa import WrittenQuestions, write_candidates
from webdancer.synth.easy_to_hard import Description, PickedEntity, RewrittenQuestion
from webdancer.synth.filters import answer_without_tools
from webdancer.synth.groups import PageGroup
from webdancer.trajectories.funnel import run_funnel

FILE = Path(__file__).parents[1] / "fixtures_llm" / "cold_replies.json"
RECORDED = json.loads(FILE.read_text(encoding="utf-8"))
PAGES = {
    name: Page(**page, fetched_at=datetime(2025, 1, 1, tzinfo=UTC), content_hash=name)
    for name, page in RECORDED["pages"].items()
}


def cases(prompt):
    found = [case for case in RECORDED["cases"] if case["prompt"] == prompt]
    return pytest.mark.parametrize("case", found, ids=[case["name"] for case in found])


def pages_of(case):
    return [PAGES[name] for name in case["pages"]]


def filled(case):
    fields = dict(case["fields"])
    if case["pages"]:
        fields["pages"] = format_pages((page.url, page.title, page.text) for page in pages_of(case))
    return fill_prompt(case["prompt"], **fields)


def test_every_role_has_a_case_and_the_file_is_small():
    roles = {case["prompt"] for case in RECORDED["cases"]} | {"agent", "force_answer"}
    known = {file.name.removesuffix(".md") for file in resources.files("webdancer.llm").joinpath("prompts").iterdir()}
    assert roles <= known
    assert known - roles <= {"agent_brief", "conversation"}
    assert FILE.stat().st_size < 100_000


@cases("write_questions")
async def test_written_questions_pass_the_checks(case):
    written = find_object(case["reply"], WrittenQuestions).questions
    assert len(written) <= int(case["fields"]["num_questions"])
    kind = None if case["fields"]["kind"] == "simple" else QAKind(case["fields"]["kind"])
    for item in written:
        assert check_question(item.question, item.answer, kind) is None
        num_pages = 1 if kind is None else 2
        assert check_evidence(item.evidence_urls, [p.url for p in pages_of(case)], num_pages=num_pages) is None
        digits_only = kind is QAKind.COUNT
        assert digits_only or any(item.answer in page.text for page in pages_of(case))
    if kind is not None and written:
        model = ScriptedModel([case["reply"]])
        group = PageGroup(f"{kind}-0", kind, tuple(page.url for page in pages_of(case)))
        settings = SynthSettings(questions_per_group=int(case["fields"]["num_questions"]))
        candidates = await write_candidates(model, group, pages_of(case), settings=settings, seed=1)
        assert [candidate.reason for candidate in candidates] == [None] * len(written)
        assert model.calls[0][0][0].content == filled(case)  # the stage asks what was answered


@cases("pick_entity")
def test_a_picked_entity_stands_in_the_question(case):
    picked = find_object(case["reply"], PickedEntity)
    assert contains_name(case["fields"]["question"], picked.entity)
    assert not contains_name(picked.entity, case["fields"]["answer"])
    assert picked.query


@cases("describe_entity")
def test_a_description_passes_the_checks(case):
    described, fields = find_object(case["reply"], Description), case["fields"]
    knowledge = "\n".join(page.text for page in pages_of(case))
    problem = check_description(
        described.description,
        entity=fields["entity"],
        answer=fields["answer"],
        question=fields["question"],
        knowledge=knowledge,
    )
    assert problem is None
    assert check_evidence(described.evidence_urls, [page.url for page in pages_of(case)], num_pages=1) is None
    assert all(contains_name(described.description, name) for name in described.introduced)


@cases("rewrite_question")
def test_a_rewritten_question_passes_the_checks(case):
    question, fields = find_object(case["reply"], RewrittenQuestion).question, case["fields"]
    answer = next(c["fields"]["answer"] for c in RECORDED["cases"] if c["fields"].get("question") == fields["question"])
    problem = check_rewrite(question, entity=fields["entity"], description=fields["description"], answer=answer)
    assert problem is None
    assert told_answer(question, answer) is None


@cases("summariser")
async def test_evidence_is_copied_word_for_word_and_the_toolbox_takes_it(case):
    report, fields = find_object(case["reply"], PageReport), case["fields"]
    assert all(line in fields["text"] for line in report.evidence.splitlines())
    page = next(page for page in PAGES.values() if page.url == fields["url"])
    assert page.text == fields["text"]
    web, model = MemoryWeb({page.url: page}), ScriptedModel([case["reply"]])
    result = await Toolbox(web, web, model, AgentSettings()).call("visit", {"url": page.url, "goal": fields["goal"]})
    assert (result.error, result.num_unsummarised) == (None, 0)
    assert result.observation.endswith(f"Evidence in page:\n{report.evidence}\n\nSummary:\n{report.summary}")
    assert model.calls[0][0][0].content == filled(case)


@cases("answer_directly")
async def test_an_answer_is_taken(case):
    if not case["fields"]["results"]:
        model = ScriptedModel([case["reply"]])
        assert await answer_without_tools(model, case["fields"]["question"]) == json.loads(case["reply"])["answer"]
        assert model.calls[0][0][0].content == filled(case)
    else:
        assert json.loads(case["reply"])["answer"] in case["fields"]["results"]


JUDGED = {"a version with a word": True, "more precise": True, "less precise": False, "a numeral, Chinese": True}


@cases("judge")
async def test_a_judgement_is_taken(case):
    model = ScriptedModel([case["reply"]])
    judgement = await judge(model, **case["fields"])
    assert judgement.correct is JUDGED.get(case["name"], False)
    assert model.calls[0][0][0].content == filled(case)


@cases("critic")
async def test_a_critic_s_reply_becomes_a_verdict(case, tmp_path):
    # The record of the case is shown; the funnel is given a short trajectory that reaches the critic.
    assert case["fields"]["trajectory"] in filled(case)
    calls = [
        Step(thought="t", tool="search", arguments={"query": [str(i)]}, observation="An observation.") for i in (1, 2)
    ]
    trajectory = Trajectory(
        id="t",
        qa_id="q",
        question=case["fields"]["question"],
        model="m",
        seed=0,
        steps=(*calls, Step(thought="So.")),
        answer="Velm",
        status=Status.ANSWERED,
    )
    qa = QA(id="q", question=trajectory.question, answer="Velm", kind=QAKind.COUNT, evidence_urls=("a", "b"))
    result = await run_funnel(
        [trajectory],
        {"q": qa},
        judge_model=ScriptedModel(['{"correct": true}']),
        critic_model=ScriptedModel([case["reply"]]),
        settings=FunnelSettings(),
        out=tmp_path / "verdicts.jsonl",
    )
    if case["name"] == "a wrong year, Chinese":
        assert [reason.value for reason in result.dropped[VerdictStage.CRITIC]] == ["inaccurate"]
    else:
        assert result.kept == ("t",)


@cases("reask_json")
async def test_a_second_reply_is_taken(case):
    model = ScriptedModel(["I think it is 3.13.", case["reply"]])
    assert await answer_without_tools(model, "In which version?") == "3.13"
    assert model.calls[1][0][-1].content == filled(case)


@pytest.mark.parametrize("turn", RECORDED["turns"], ids=[turn["name"] for turn in RECORDED["turns"]])
def test_a_turn_follows_the_format(turn):
    transcript = Transcript(turn["question"], TOOL_SCHEMAS)
    for thought, tool, arguments, observation in turn["steps"]:
        transcript.add_step(Step(thought=thought, tool=tool, arguments=arguments, observation=observation))
    if turn["forced"]:
        transcript.demand_answer()
    assert transcript.messages[-1].role == "user"
    parsed = parse_turn(turn["reply"], mode=CotMode.SHORT)
    assert isinstance(parsed, Turn)
    assert (parsed.answer is None) == (not turn["steps"])


@pytest.mark.parametrize("name", sorted({case["prompt"] for case in RECORDED["cases"]} | {"agent", "force_answer"}))
def test_every_prompt_says_which_language_to_write_in(name):
    assert "language" in load_prompt(name)
