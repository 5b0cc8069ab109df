"""A short trial of each role of a language model: does it follow the role's prompt, and is what it says right?

The material is two invented pages and one question. Each trial runs the code of the stage itself and comes to a problem in
words, or to none. A model that passes can hold the role in form; how well it holds it, only a run can tell.
"""

import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.config import Config
from webdancer.errors import ModelError
from webdancer.judge.llm_judge import judge
from webdancer.judge.match import exact_match
from webdancer.llm.protocol import Sampling
from webdancer.pipeline.models import Models
from webdancer.records import QA, CotMode, Page, QAKind, Status, Step, Trajectory, Verdict
from webdancer.store import RecordWriter
from webdancer.synth.crawl_qa import write_candidates
from webdancer.synth.easy_to_hard import Web, write_hard_candidates
from webdancer.synth.filters import answer_without_tools
from webdancer.synth.groups import PageGroup
from webdancer.trajectories.funnel import Funnel
from webdancer.web.protocol import PageNotFound, SearchHit

_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_BRIDGE = Page(
    url="http://trial.example/Orlow_Bridge",
    title="Orlow Bridge",
    text="# Orlow Bridge\nThe Orlow Bridge crosses the Sarn. The engineer Tilda Marrow designed it; it opened in 1931.",
    links=("http://trial.example/Tilda_Marrow",),
    fetched_at=_DAY,
    content_hash="bridge",
)
_ENGINEER = Page(
    url="http://trial.example/Tilda_Marrow",
    title="Tilda Marrow",
    text="# Tilda Marrow\nTilda Marrow was an engineer. She was born in Kesterby and designed the Orlow Bridge, the Venn Viaduct "
    "and the Hask Dam.",
    links=("http://trial.example/Orlow_Bridge",),
    fetched_at=_DAY,
    content_hash="engineer",
)
_QA = QA(
    id="trial",
    question="In which town was the engineer who designed the Orlow Bridge born?",
    answer="Kesterby",
    kind=QAKind.MULTI_HOP,
    evidence_urls=(_BRIDGE.url, _ENGINEER.url),
)
_GROUP = PageGroup("trial-0", QAKind.MULTI_HOP, _QA.evidence_urls)


class _TrialWeb:
    """The two pages."""

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        return [SearchHit(page.title, page.url, None, page.text.splitlines()[1]) for page in (_BRIDGE, _ENGINEER)]

    async def read(self, url: str) -> Page:
        for page in (_BRIDGE, _ENGINEER):
            if page.url == url:
                return page
        raise PageNotFound(f"no page was found at {url}")


async def try_roles(models: Models, config: Config) -> dict[str, str | None]:
    """Try every role; by its name the problem found, None where all was as asked."""
    trials: dict[str, Callable[[Models, Config], Awaitable[str | None]]] = {
        "writer": _try_writer,
        "rewriter": _try_rewriter,
        "teacher": _try_teacher,
        "summariser": _try_summariser,
        "judge": _try_judge,
        "critic": _try_critic,
        "answerer": _try_answerer,
    }
    found: dict[str, str | None] = {}
    for role, trial in trials.items():
        try:
            found[role] = await trial(models, config)
        except ModelError as error:
            found[role] = str(error)
    return found


async def _try_writer(models: Models, config: Config) -> str | None:
    found = await write_candidates(models.writer, _GROUP, [_BRIDGE, _ENGINEER], settings=config.synth, seed=1)
    if not found:
        return "wrote no question about two pages that allow one"
    if all(candidate.reason for candidate in found):
        first = found[0]
        return f"wrote {first.qa.question!r}, which does not do: {first.reason} {first.detail}".strip()
    return None


async def _try_rewriter(models: Models, config: Config) -> str | None:
    settings = config.synth.model_copy(update={"min_rewrites": 1, "max_rewrites": 1})
    web = _TrialWeb()
    group = PageGroup("trial-1", QAKind.EASY_TO_HARD, (_ENGINEER.url,))
    found = await write_hard_candidates(
        models.writer, models.rewriter, Web(web, web), group, _ENGINEER, settings=settings, seed=1
    )
    if not found:
        return "no simple question came to be rewritten"
    return None if found[0].qa.num_rewrites else f"did not rewrite {found[0].qa.question!r}: {found[0].detail}"


async def _try_teacher(models: Models, config: Config) -> str | None:
    trajectory = await _episode(models, config)
    if trajectory.status is not Status.ANSWERED:
        errors = [step.observation or "" for step in trajectory.steps if step.error]
        said = f": {errors[-1]}" if errors else f": {trajectory.detail}" if trajectory.detail else ""
        return f"the episode ended by {trajectory.status} after {len(trajectory.steps)} turns{said}"
    if not exact_match(_QA.answer, trajectory.answer or ""):
        return f"answered {trajectory.answer!r}, expected {_QA.answer!r}"
    return None


async def _episode(models: Models, config: Config) -> Trajectory:
    web, settings = _TrialWeb(), config.agent.model_copy(update={"max_steps": 8})
    return await run_episode(
        models.agent,
        Toolbox(web, web, models.summariser, settings),
        trajectory_id="trial",
        qa_id="trial",
        question=_QA.question,
        settings=settings,
        mode=config.sample.mode,
        sampling=Sampling(temperature=config.sample.temperature, top_p=config.sample.top_p),
        seed=1,
        omit_thoughts=config.sample.mode is CotMode.LONG,
    )


async def _try_summariser(models: Models, config: Config) -> str | None:
    web = _TrialWeb()
    toolbox = Toolbox(web, web, models.summariser, config.agent)
    result = await toolbox.call("visit", {"url": _ENGINEER.url, "goal": "where Tilda Marrow was born"})
    if result.num_unsummarised:
        return "gave no usable summary of a page"
    return (
        None
        if _QA.answer in result.observation
        else f"its summary leaves out what was asked for: {result.observation!r}"
    )


async def _try_judge(models: Models, config: Config) -> str | None:
    for answer, expected in ((f"the town of {_QA.answer}", True), ("Sarn", False)):
        found = await judge(models.judge, question=_QA.question, reference=_QA.answer, answer=answer)
        if found.correct is not expected:
            return f"called {answer!r} {'correct' if found.correct else 'incorrect'}; the reference is {_QA.answer!r}"
    return None


async def _try_critic(models: Models, config: Config) -> str | None:
    search = Step(
        thought="I need the engineer of the Orlow Bridge.",
        tool="search",
        arguments={"query": ["Orlow Bridge engineer"]},
        observation="1. Orlow Bridge: It was designed by the engineer Tilda Marrow and opened in 1931.",
    )
    visit = Step(
        thought="The engineer was Tilda Marrow. I read her page to see where she was born.",
        tool="visit",
        arguments={"url": _ENGINEER.url, "goal": "where Tilda Marrow was born"},
        observation="Evidence in page:\nShe was born in Kesterby.\n\nSummary:\nTilda Marrow was born in Kesterby.",
    )
    trajectory = Trajectory(
        id="trial", qa_id="trial", question=_QA.question, model="trial", seed=0, answer=_QA.answer, status=Status.ANSWERED,
        steps=(search, visit, Step(thought="Her page says that she was born in Kesterby.")),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, RecordWriter(Path(folder) / "verdicts.jsonl", Verdict) as verdicts:
        last = await Funnel(models.judge, models.critic, config.funnel, verdicts).run(trajectory, _QA)
    return None if last.keep else f"dropped a faultless trajectory: {last.reason} {last.detail}".strip()


async def _try_answerer(models: Models, config: Config) -> str | None:
    answer = await answer_without_tools(models.agent, "How many legs does a spider have? Answer in digits.")
    return None if exact_match("8", answer) or exact_match("eight", answer) else f"answered {answer!r}, expected '8'"
