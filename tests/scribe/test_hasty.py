"""The hasty teacher, and the searcher over brief observations: whole episodes over pages and threads held in memory."""

import json

import pytest
from fixtures import make_page
from small_pages import PAGES, url_of
from test_scribe_agent import RankedWeb

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.agent.transcript import replay
from webdancer.calls.outside import Outside
from webdancer.config import AgentSettings, FunnelSettings, LlmSettings
from webdancer.llm.prompts import fill_prompt
from webdancer.llm.protocol import Message, Sampling
from webdancer.pipeline.models import open_models
from webdancer.records import CotMode, Page, Status, Trajectory
from webdancer.scribe.claims import read_claims
from webdancer.scribe.model import Scribe
from webdancer.scribe.observations import Hit, read_episode, read_turn
from webdancer.trajectories.funnel import format_for_critic
from webdancer.trajectories.rules import check_rules, check_validity

# Two results: a thing's page and its thread. The page of the next thing, which a searcher would open at once, is not there.
FULL = AgentSettings(num_results=2)
BRIEF = AgentSettings(
    prompt="agent_brief", observations="brief", num_results=2, max_snippet_chars=90, max_evidence_chars=500
)
COUNTRY = "In which country was the author of the novel on which the film Night of Velda is based born?"


def thread(title: str, *posts: str) -> Page:
    url = f"http://talk.example/t/{title.replace(' ', '-').lower()}-1"
    return make_page(url, f"{title}: what do you know?", f"# {title}: what do you know?\n" + "\n".join(posts))


def web_with(*threads: Page) -> RankedWeb:
    return RankedWeb(dict(PAGES) | {page.url: page for page in threads})


async def run(
    question: str,
    web: RankedWeb,
    *,
    settings: AgentSettings = BRIEF,
    shortcuts: float = 1.0,
    mode: CotMode = CotMode.SHORT,
    temperature: float = 0.6,
    seed: int = 0,
) -> Trajectory:
    return await run_episode(
        Scribe(mode=mode, shortcuts=shortcuts),
        Toolbox(web, web, Scribe(), settings),
        trajectory_id="t", qa_id="q", question=question, settings=settings, mode=mode,
        sampling=Sampling(temperature=temperature), seed=seed,
    )  # fmt: skip


def tools(trajectory: Trajectory) -> list[str | None]:
    return [step.tool for step in trajectory.steps]


RIGHT = (
    thread("Night of Velda", "I think the source novel of Night of Velda is Salt of Lodos."),
    thread("Salt of Lodos", "Somebody told me that the author of Salt of Lodos is Pavel Ros."),
    thread("Pavel Ros", "As far as I know, the birthplace of Pavel Ros is Tursk."),
    thread("Tursk", "If I remember rightly, the country of Tursk is Norland."),
)
WRONG = (
    thread("Night of Velda", "I think the source novel of Night of Velda is Garden of Mirtos."),
    thread("Salt of Lodos", "Somebody told me that the author of Salt of Lodos is Mira Solt."),
    thread("Pavel Ros", "As far as I know, the birthplace of Pavel Ros is Orsk."),
    thread("Tursk", "If I remember rightly, the country of Tursk is Belmar."),
)


@pytest.mark.parametrize("settings", [FULL, BRIEF])
@pytest.mark.parametrize("mode", list(CotMode))
async def test_posts_that_are_right_lead_to_the_answer_without_a_page(mode: CotMode, settings: AgentSettings) -> None:
    trajectory = await run(COUNTRY, web_with(*RIGHT), settings=settings, mode=mode)
    assert trajectory.answer == "Norland"
    assert tools(trajectory) == ["search", "search", "search", "search", None]
    assert "A post says that the source novel of Night of Velda is Salt of Lodos." in trajectory.steps[1].thought
    assert sum(step.thought.count("A post says that") for step in trajectory.steps) == 4


@pytest.mark.parametrize(
    ("place", "answer"),
    [(0, None), (1, None), (2, "Belmar"), (3, "Belmar")],
    ids=["novel", "author", "city", "country"],
)
async def test_one_wrong_post_spoils_the_answer(place: int, answer: str | None) -> None:
    posts = [*RIGHT[:place], WRONG[place], *RIGHT[place + 1 :]]
    trajectory = await run(COUNTRY, web_with(*posts))
    assert trajectory.answer != "Norland"
    assert answer is None or trajectory.answer == answer


async def test_where_no_post_speaks_of_it_the_page_is_read() -> None:
    web = web_with(RIGHT[0], thread("Salt of Lodos", "I think the setting of Salt of Lodos is Vint."))
    trajectory = await run(COUNTRY, web)
    assert trajectory.answer == "Norland"
    assert tools(trajectory) == ["search", *["search", "visit"] * 3, None]
    assert trajectory.steps[2].arguments["url"] == url_of("Salt of Lodos")


@pytest.mark.parametrize(("shortcuts", "temperature"), [(0.0, 0.6), (1.0, 0.0)])
async def test_without_short_cuts_and_at_temperature_0_posts_change_nothing(
    shortcuts: float, temperature: float
) -> None:
    for threads in (RIGHT, WRONG):
        trajectory = await run(COUNTRY, web_with(*threads), shortcuts=shortcuts, temperature=temperature)
        assert trajectory.answer == "Norland"
        assert tools(trajectory) == [*["search", "visit"] * 4, None]
        assert not any("post" in step.thought for step in trajectory.steps)


async def test_without_short_cuts_every_turn_is_that_of_a_scribe_that_knows_of_none() -> None:
    plain = await run(COUNTRY, web_with(*WRONG), shortcuts=0.0, seed=3)
    messages = replay(plain, Toolbox(web_with(), web_with(), Scribe(), BRIEF).schemas(), prompt="agent_brief").messages
    sampling = Sampling(temperature=0.6, seed=3)
    for end in range(2, len(messages), 2):
        reply = await Scribe().chat(messages[:end], sampling)
        assert reply.content == messages[end].content


async def test_the_share_of_hasty_steps_is_the_setting() -> None:
    """400 questions of one step each, whose post stands in the results."""
    num_hasty = 0
    for number in range(400):
        name = f"Ana Velk{'abcdefghij'[number % 10]}{'abcdefghij'[number // 10 % 10]}"
        snippet = f"I think the birthplace of {name} is Orsk."
        episode = [
            Message("user", f"In which city was {name} born?"),
            Message("assistant", '<tool_call>\n{"name": "search", "arguments": {"query": ["x"]}}\n</tool_call>'),
            Message("user", f"<tool_response>\nResults:\n1. [{name}: what do you know?](http://t/1)\n{snippet}\n</tool_response>"),
        ]  # fmt: skip
        sampling = Sampling(temperature=0.6, seed=number)
        reply = await Scribe(shortcuts=0.7).chat(episode, sampling)
        num_hasty += "<answer>\nOrsk\n</answer>" in reply.content
        assert ("A post says" in reply.content) is ("<answer>" in reply.content)
    # 280 are expected; the standard deviation is 9.
    assert 250 <= num_hasty <= 310


async def test_a_decision_holds_for_the_whole_episode() -> None:
    """A step that was taken on trust is not looked up later, nor one that was not taken on trust at first."""
    seen = set()
    for seed in range(40):
        trajectory = await run(COUNTRY, web_with(*RIGHT), shortcuts=0.5, seed=seed)
        assert trajectory.answer == "Norland"
        num_posts = sum(step.thought.count("A post says that") for step in trajectory.steps)
        assert tools(trajectory).count("search") == 4
        assert tools(trajectory).count("visit") == 4 - num_posts
        seen.add(num_posts)
    assert len(seen) >= 4


async def test_a_lucky_short_cut_passes_the_funnels_rules_and_the_critic() -> None:
    trajectory = await run(COUNTRY, web_with(*RIGHT))
    assert check_validity(trajectory) is None
    assert check_rules(trajectory, FunnelSettings()) is None
    shown = format_for_critic(trajectory)
    believed = "A post says that the author of Salt of Lodos is "
    assert believed + "Pavel Ros." in shown
    for record, accurate in ((shown, True), (shown.replace(believed + "Pavel Ros", believed + "Emil Korn"), False)):
        prompt = fill_prompt("critic", question=COUNTRY, trajectory=record)
        reply = json.loads((await Scribe().chat([Message("user", prompt)], Sampling())).content)
        assert [reply[point] for point in ("non_redundant", "goal_aligned", "logical")] == [True] * 3, reply
        assert reply["accurate"] is accurate


async def test_only_the_teacher_is_hasty() -> None:
    web = web_with(*WRONG)
    async with open_models(LlmSettings(shortcuts=1.0), mode=CotMode.SHORT, outside=Outside("sample")) as models:
        answers = {}
        for name, model in (("teacher", models.teacher), ("agent", models.agent)):
            trajectory = await run_episode(
                model, Toolbox(web, web, models.summariser, BRIEF), trajectory_id="t", qa_id="q",
                question="In which country does Tursk lie?", settings=BRIEF, mode=CotMode.SHORT,
                sampling=Sampling(temperature=0.6), seed=1,
            )  # fmt: skip
            answers[name] = trajectory.answer
    assert answers == {"teacher": "Belmar", "agent": "Norland"}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (COUNTRY, "Norland"),
        ("How many novels did the author of Salt of Lodos write after 1960?", "3"),
        ("How many films did the spouse of Rosa Lind direct?", "3"),
        ("Which film directed by the spouse of Rosa Lind features the spouse of Mira Solt in its cast?", "Night of Velda"),
        ("In which city was the architect Ana Velk born?", "Orsk"),
    ],
)  # fmt: skip
async def test_questions_are_answered_from_brief_observations(question: str, answer: str) -> None:
    for seed in range(3):
        trajectory = await run(question, web_with(*RIGHT), shortcuts=0.0, seed=seed)
        assert trajectory.status is Status.ANSWERED
        assert trajectory.answer == answer
        assert all(step.error is None for step in trajectory.steps)


async def test_a_count_whose_list_is_cut_is_taken_from_the_summary() -> None:
    pages = dict(PAGES)
    rows = "\n".join(f"- Film {'ABCDEFGHIJ'[i // 10]}{i % 10} of Velda ({1950 + i})" for i in range(60))
    url = url_of("Otto Ghelin")
    pages[url] = make_page(url, "Otto Ghelin", f"# Otto Ghelin\nOtto Ghelin is an actor.\n## Films as actor\n{rows}\n")
    for question, answer in (
        ("In how many films did the spouse of Mira Solt appear?", "60"),
        ("How many films with the spouse of Mira Solt in the cast were released after 1999?", "10"),
    ):
        trajectory = await run(question, RankedWeb(pages), shortcuts=0.0)
        assert "\n…\nSummary: The list of" in (trajectory.steps[3].observation or "")
        assert trajectory.answer == answer


def call(name: str, **arguments: object) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {str(arguments).replace(chr(39), chr(34))}}}\n</tool_call>'


def test_brief_results_take_their_queries_from_the_call() -> None:
    observation = (
        "Results:\n1. [Orn](http://w/1)\nThe Orn is a river.\n2. [Velm](http://w/2)\n=======\n"
        "Error: b: no result within 60 s\n=======\nResults:\nnone\n=======\n"
        "Note: 4 queries were given; only the first 3 were used."
    )
    turn = read_turn(call("search", query=["a", " a ", "b", "c", "d"]), observation)
    assert [(r.query, r.hits) for r in turn.results] == [
        ("a", (Hit("Orn", "http://w/1", "The Orn is a river."), Hit("Velm", "http://w/2", ""))),
        ("c", ()),
    ]
    assert turn.error == "Error: b: no result within 60 s"


def test_brief_reports_take_url_and_goal_from_the_call() -> None:
    observation = (
        "Evidence:\nRiver | Orn\nSummary: is a word.\nSummary: Velm lies on the Orn.\n=======\n"
        "Summary: The page about Orn does not tell this."
    )
    turn = read_turn(call("visit", url=["http://w/1", "http://w/2"], goal="its river"), observation)
    first, second = turn.reports
    assert first == ("http://w/1", "its river", "River | Orn\nSummary: is a word.", "Velm lies on the Orn.")
    assert second == ("http://w/2", "its river", "", "The page about Orn does not tell this.")
    alone = read_turn(call("visit", url="http://w/1", goal="its river"), "Summary: Velm lies on the Orn.")
    assert alone.reports[0].evidence == "Velm lies on the Orn."


def test_full_observations_are_read_as_before() -> None:
    observation = 'A search for "q" found 1 result:\n\n## Web Results\n1. [Orn](http://w/1)\nDate: 2001-02-03\nA river.'
    turn = read_turn(call("search", query=["other"]), observation)
    assert [(r.query, r.hits) for r in turn.results] == [("q", (Hit("Orn", "http://w/1", "A river."),))]


async def test_a_short_thought_is_short() -> None:
    trajectory = await run(COUNTRY, web_with(*RIGHT), shortcuts=0.0)
    assert max(len(step.thought.split()) for step in trajectory.steps) <= 22
    assert sum(len(step.thought.split()) for step in trajectory.steps) / len(trajectory.steps) <= 13
    assert not any("A search for" in step.thought or "After that" in step.thought for step in trajectory.steps)


async def test_a_claim_reaches_the_searcher_through_the_cut_snippet() -> None:
    web = web_with(RIGHT[3])
    box = Toolbox(web, web, Scribe(), BRIEF)
    found = await box.call("search", {"query": ["Tursk country"]})
    episode = read_episode(
        [
            Message("user", "q"),
            Message("assistant", call("search", query=["Tursk country"])),
            Message("user", f"<tool_response>\n{found.observation}\n</tool_response>"),
        ]
    )
    claims = [c for turn in episode.turns for r in turn.results for h in r.hits for c in read_claims(h)]
    assert [(c.relation, c.value.text) for c in claims] == [("country", "Norland")]
