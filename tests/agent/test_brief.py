"""Brief observations and the brief system prompt: byte for byte, and through the loop."""

from datetime import date

from fixtures import MemoryWeb, ScriptedModel, answer_turn, call_turn, make_page, summary

from webdancer.agent.loop import run_episode
from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.agent.tools import Toolbox, format_hits_brief, format_report_brief
from webdancer.agent.transcript import Transcript, replay
from webdancer.config import AgentSettings
from webdancer.llm.prompts import load_prompt
from webdancer.llm.protocol import Sampling
from webdancer.records import CotMode, Status
from webdancer.web.protocol import SearchHit

VELM = make_page("http://w.example/Velm", "Velm", "Velm is a city on the Orn.", published=date(2001, 2, 3))
ORN = make_page("http://w.example/Orn", "Orn", "The Orn is a river. It is long, and slow, and brown.")


def toolbox(replies=(), **settings) -> Toolbox:
    web = MemoryWeb({VELM.url: VELM, ORN.url: ORN})
    return Toolbox(web, web, ScriptedModel(replies), AgentSettings(observations="brief", **settings))


def test_hits():
    hits = [
        SearchHit("Velm", "http://w.example/Velm", date(2001, 2, 3), "A city\non the Orn."),
        SearchHit("Orn", "http://w.example/Orn", None, ""),
        SearchHit("Lunt", "http://w.example/Lunt", None, "An author."),
    ]
    assert format_hits_brief(hits) == (
        "Results:\n1. [Velm](http://w.example/Velm)\nA city on the Orn.\n2. [Orn](http://w.example/Orn)\n"
        "3. [Lunt](http://w.example/Lunt)\nAn author."
    )
    assert format_hits_brief([]) == "Results:\nnone"


def test_report():
    assert format_report_brief("## Rivers\n- Orn\n- Sund\n", "Two\nrivers.") == (
        "Evidence:\n## Rivers\n- Orn\n- Sund\nSummary: Two rivers."
    )
    assert format_report_brief("River | Orn\nVelm lies there.\n", "On the Orn.") == "Summary: On the Orn."
    assert format_report_brief("River | Orn", "None could be made.", keep_short=True) == (
        "Evidence:\nRiver | Orn\nSummary: None could be made."
    )
    assert format_report_brief(" \n", "Nothing.") == "Summary: Nothing."


async def test_several_parts_are_joined_and_an_error_keeps_its_place():
    result = await toolbox().call("search", {"query": ["city", "nothing"]})
    assert result.observation == (
        "Results:\n1. [Velm](http://w.example/Velm)\nVelm is a city on the Orn.\n=======\nResults:\nnone"
    )
    box = toolbox([summary("The Orn is a river.", "The Orn is a river.")])
    result = await box.call("visit", {"url": ["http://w.example/No", ORN.url], "goal": "what it is"})
    assert result.observation == (
        "Error: http://w.example/No: no page at http://w.example/No\n=======\nSummary: The Orn is a river."
    )


async def test_snippets_and_evidence_are_cut():
    found = await toolbox(max_snippet_chars=30).call("search", {"query": "river."})
    assert found.observation == "Results:\n1. [Orn](http://w.example/Orn)\nThe Orn is a river."
    lines = "\n".join(f"line {number:02}" for number in range(20))
    visited = await toolbox([summary(lines, "Lines.")], max_evidence_chars=50).call(
        "visit", {"url": ORN.url, "goal": "g"}
    )
    # Six lines of seven characters, five breaks between them, and the mark with its break: 49.
    assert visited.observation == (
        "Evidence:\nline 00\nline 01\nline 02\nline 03\nline 04\nline 05\n…\nSummary: Lines."
    )


async def test_the_cuts_also_hold_for_full_observations():
    web = MemoryWeb({ORN.url: ORN})
    box = Toolbox(web, web, ScriptedModel([]), AgentSettings(max_snippet_chars=30))
    assert (await box.call("search", {"query": "the river."})).observation == (
        'A search for "the river." found 1 result:\n\n## Web Results\n1. [Orn](http://w.example/Orn)\nThe Orn is a river.'
    )


def test_the_brief_prompt_has_at_most_45_words_and_names_the_role():
    text = load_prompt("agent_brief")
    assert text.startswith("Role: agent\n")
    assert len(text.split()) <= 45
    assert Transcript("Where?", TOOL_SCHEMAS, prompt="agent_brief").messages[0].content == text


async def test_an_episode_runs_under_the_prompt_of_the_settings_and_is_replayed_under_it():
    model = ScriptedModel([call_turn("I look.", "search", query=["city"]), answer_turn("So.", "Velm")])
    settings = AgentSettings(prompt="agent_brief", observations="brief")
    web = MemoryWeb({VELM.url: VELM})
    trajectory = await run_episode(
        model, Toolbox(web, web, ScriptedModel([]), settings), trajectory_id="t", qa_id="q", question="Where?",
        settings=settings, mode=CotMode.SHORT, sampling=Sampling(), seed=0,
    )  # fmt: skip
    assert trajectory.status is Status.ANSWERED
    shown = model.calls[-1][0]
    assert shown[0].content == load_prompt("agent_brief")
    assert replay(trajectory, TOOL_SCHEMAS, prompt="agent_brief").messages[: len(shown)] == shown
    assert replay(trajectory, TOOL_SCHEMAS).messages[0].content != shown[0].content
