"""The scribe as searcher: whole episodes through the real loop and tools, over pages held in memory."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from fixtures import MemoryWeb, make_page
from small_pages import PAGES, url_of

from webdancer.agent.format import Violation, parse_turn
from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings, FunnelSettings, ScribeFaultSettings
from webdancer.llm.protocol import Message, Sampling
from webdancer.records import CotMode, Page, Status, ToolError, Trajectory
from webdancer.scribe.faults import FaultKind, draw_fault
from webdancer.scribe.model import Scribe
from webdancer.web.protocol import SearchHit, ToolFailure

NO_FAULTS = dict.fromkeys(ScribeFaultSettings.model_fields, 0.0)


class RankedWeb(MemoryWeb):
    """Ranks pages by how many words of the query their title and text hold, titles counting more."""

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        self.searches.append((query, num_results, year))
        if query in self.broken_queries:
            raise self.broken_queries[query]
        words = set(re.findall(r"\w+", query.lower()))
        scored = []
        for page in self.pages.values():
            if isinstance(page, Page):
                title = set(re.findall(r"\w+", page.title.lower()))
                text = set(re.findall(r"\w+", page.text.lower()))
                scored.append((5 * len(words & title) - len(title - words) + len(words & text), page))
        scored.sort(key=lambda pair: (-pair[0], pair[1].url))
        return [
            SearchHit(p.title, p.url, None, " ".join(p.text.split())[:200]) for n, p in scored[:num_results] if n > 0
        ]


async def run(
    question: str,
    *,
    web: MemoryWeb | None = None,
    model: Scribe | None = None,
    mode: CotMode = CotMode.SHORT,
    temperature: float = 0.0,
    seed: int = 0,
    max_steps: int = 24,
) -> Trajectory:
    web = web or RankedWeb(dict(PAGES))
    settings = AgentSettings(max_steps=max_steps)
    return await run_episode(
        model or Scribe(mode=mode),
        Toolbox(web, web, Scribe(), settings),
        trajectory_id="t",
        qa_id="q",
        question=question,
        settings=settings,
        mode=mode,
        sampling=Sampling(temperature=temperature),
        seed=seed,
    )


@pytest.mark.parametrize("mode", list(CotMode))
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Where was Pavel Ros born?", "Tursk"),
        ("Who wrote the novel on which Night of Velda is based?", "Pavel Ros"),
        ("In which country was the author of the novel on which the film Night of Velda is based born?", "Norland"),
        ("How many novels did the author of Salt of Lodos write after 1960?", "3"),
        ("How many films did the spouse of Rosa Lind direct?", "3"),
        (
            "Which film directed by the spouse of Rosa Lind features the spouse of Mira Solt in its cast?",
            "Night of Velda",
        ),
        ("What is the official language of the country in which the city twinned with Tursk lies?", "Belmish"),
        ("In which city was the architect Ana Velk born?", "Orsk"),
        ("In which city was the film director Ana Velk born?", "Tursk"),
    ],
)
async def test_questions_are_answered_from_the_pages(question: str, answer: str, mode: CotMode) -> None:
    trajectory = await run(question, mode=mode)
    assert trajectory.status is Status.ANSWERED
    assert trajectory.answer == answer
    assert all(step.error is None for step in trajectory.steps)
    assert all(step.thought for step in trajectory.steps)


async def test_a_page_is_visited_before_its_fact_is_used() -> None:
    trajectory = await run("Where was Pavel Ros born?")
    assert [step.tool for step in trajectory.steps] == ["search", "visit", None]
    assert trajectory.steps[1].arguments["url"] == url_of("Pavel Ros")


@pytest.mark.parametrize("mode", list(CotMode))
async def test_two_lists_are_compared_entry_by_entry(mode: CotMode) -> None:
    question = "Which film directed by the spouse of Rosa Lind features the spouse of Mira Solt in its cast?"
    trajectory = await run(question, mode=mode)
    thought = trajectory.steps[-1].thought
    entries = re.findall(r"([\w ]+): (no|yes)\.", thought.partition("In both lists?")[2])
    assert [verdict for _, verdict in entries] == [*["no"] * (len(entries) - 1), "yes"]
    assert entries[-1][0].strip() == trajectory.answer
    shown = [step.observation or "" for step in trajectory.steps if step.tool == "visit"]
    others = "\n".join(shown[:-1])
    for name, verdict in entries:
        assert name.strip() in shown[-1]
        assert (name.strip() in others) is (verdict == "yes")


async def test_no_call_is_made_twice() -> None:
    trajectory = await run(
        "In which country was the author of the novel on which the film Night of Velda is based born?"
    )
    calls = Counter(json.dumps(step.arguments) for step in trajectory.steps if step.tool)
    assert max(calls.values()) == 1


async def test_another_name_is_understood() -> None:
    pages = dict(PAGES)
    pages[url_of("Pale Rudana")] = make_page(
        url_of("Pale Rudana"), "Pale Rudana", "Pale Rudana was directed by R. Lind."
    )
    trajectory = await run("Where was the director of the film Pale Rudana born?", web=RankedWeb(pages))
    assert trajectory.answer == "Tursk"


async def test_a_silent_page_leads_to_another_plan() -> None:
    """The film's page does not say who directed it; the director's list does."""
    pages = dict(PAGES)
    pages[url_of("Winter Mirana")] = make_page(url_of("Winter Mirana"), "Winter Mirana", "Much was improvised.")
    trajectory = await run("In which city was the director of the film Winter Mirana born?", web=RankedWeb(pages))
    assert trajectory.answer == "Tursk"
    assert trajectory.steps[1].arguments["url"] == url_of("Winter Mirana")
    assert any("silent" in step.thought or "does not tell" in step.thought for step in trajectory.steps)


async def test_a_failing_search_is_tried_once_more_and_then_in_other_words() -> None:
    web = RankedWeb(dict(PAGES), broken_queries={"Pavel Ros birthplace": ToolFailure("down")})
    trajectory = await run("Where was Pavel Ros born?", web=web)
    assert trajectory.answer == "Tursk"
    assert [query for query, _, _ in web.searches] == ["Pavel Ros birthplace", "Pavel Ros birthplace", "Pavel Ros"]
    assert trajectory.steps[0].error is ToolError.TOOL_FAILED


async def test_an_unanswerable_question_ends_with_a_guess_in_kind() -> None:
    trajectory = await run("How many novels did Mira Solt write?")
    assert trajectory.status is Status.ANSWERED
    assert trajectory.answer is not None
    assert trajectory.answer.isdecimal()
    assert len(trajectory.steps) < 16


async def test_the_last_demand_is_answered_without_a_call() -> None:
    trajectory = await run("How many novels did the author of Salt of Lodos write?", max_steps=2)
    assert trajectory.status is Status.FORCED_ANSWER
    assert trajectory.answer


async def test_a_question_in_other_words_is_looked_up() -> None:
    trajectory = await run("Tell me which river one finds at Orsk?")
    assert trajectory.status is Status.ANSWERED
    assert trajectory.answer == "River Orn"


async def test_temperature_varies_and_the_seed_repeats() -> None:
    question = "In which country was the author of the novel on which the film Night of Velda is based born?"
    runs = [await run(question, temperature=0.8, seed=seed) for seed in (1, 1, 2, 3, 4)]
    texts = [[(s.thought, s.arguments) for s in t.steps] for t in runs]
    assert texts[0] == texts[1]
    assert len({json.dumps(text) for text in texts}) >= 4
    assert {t.answer for t in runs} == {"Norland"}
    cold = [await run(question, temperature=0.0, seed=seed) for seed in (1, 2)]
    assert [s.thought for s in cold[0].steps] == [s.thought for s in cold[1].steps]


async def test_long_thoughts_are_reasoning_and_say_more() -> None:
    short = await run("How many films did the spouse of Rosa Lind direct?")
    long = await run("How many films did the spouse of Rosa Lind direct?", mode=CotMode.LONG)
    assert [s.tool for s in short.steps] == [s.tool for s in long.steps]
    assert sum(len(s.thought) for s in long.steps) > sum(len(s.thought) for s in short.steps)
    reply = await Scribe(mode=CotMode.LONG).chat([Message("user", "Where was Pavel Ros born?")], Sampling())
    assert reply.reasoning
    assert "<think>" not in reply.content


async def test_thoughts_name_only_what_was_read_or_asked() -> None:
    trajectory = await run("Who wrote the novel on which Night of Velda is based?")
    seen = trajectory.question
    for step in trajectory.steps:
        for name in re.findall(r"[A-Z]\w+ (?:of )?[A-Z]\w+", step.thought):
            assert name in seen or name.split(" ", 1)[1] in seen
        seen += step.observation or ""


async def test_stop_and_max_tokens_cut_the_reply() -> None:
    message = [Message("user", "Where was Pavel Ros born?")]
    stopped = await Scribe().chat(message, Sampling(stop=("</think>",)))
    assert "</think>" not in stopped.content
    cut = await Scribe().chat(message, Sampling(max_tokens=5))
    assert cut.finish == "length"
    assert len(cut.content) <= 20


FAULT_FINDINGS = {
    FaultKind.BROKEN_JSON: "invalid_json",
    FaultKind.UNKNOWN_TOOL: "unknown_tool",
    FaultKind.TWO_ACTIONS: "several_actions",
    FaultKind.INVENTED_OBSERVATION: "invented_observation",
}


@pytest.mark.parametrize("mode", list(CotMode))
@pytest.mark.parametrize("kind", list(FaultKind))
async def test_a_planted_fault_is_there_and_labelled(kind: FaultKind, mode: CotMode, tmp_path: Path) -> None:
    log = tmp_path / "faults.jsonl"
    scribe = Scribe(mode=mode, faults=ScribeFaultSettings(**{**NO_FAULTS, kind.value: 1.0}), fault_log=log)
    question = "In which country was the author of the novel on which the film Night of Velda is based born?"
    trajectory = await run(question, model=scribe, mode=mode, temperature=0.6, seed=5)
    (label,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (label["seed"], label["question"], label["fault"]) == (5, question, kind.value)
    step = trajectory.steps[label["turn"]]
    if kind in FAULT_FINDINGS:
        turn = parse_turn(step.raw or "", mode=mode, reasoning=step.thought or None)
        assert isinstance(turn, list)
        assert isinstance(turn[0], Violation)
        assert turn[0].kind.value == FAULT_FINDINGS[kind]
        assert trajectory.answer == "Norland"
    elif kind is FaultKind.REPETITION:
        words = step.thought.split()
        grams = Counter(tuple(words[i : i + 10]) for i in range(len(words) - 9))
        assert max(grams.values()) > FunnelSettings().max_ngram_repeats
        assert trajectory.answer == "Norland"
    elif kind is FaultKind.GIVING_UP:
        assert trajectory.answer == "I could not find the answer"
        assert len(trajectory.steps) == label["turn"] + 1 < 4
    else:
        assert trajectory.answer not in ("Norland", None, "")


async def test_rates_are_kept_and_no_fault_means_no_label(tmp_path: Path) -> None:
    settings = ScribeFaultSettings(**{**NO_FAULTS, "broken_json": 0.1, "wrong_answer": 0.2})
    drawn = Counter(f.kind if (f := draw_fault(settings, seed=i, question="q")) else None for i in range(4000))
    assert 330 < drawn[FaultKind.BROKEN_JSON] < 470
    assert 700 < drawn[FaultKind.WRONG_ANSWER] < 900
    assert set(drawn) == {FaultKind.BROKEN_JSON, FaultKind.WRONG_ANSWER, None}
    scribe = Scribe(faults=ScribeFaultSettings(**NO_FAULTS), fault_log=tmp_path / "log")
    assert (await run("Where was Pavel Ros born?", model=scribe)).answer == "Tursk"
    assert not (tmp_path / "log").exists()
