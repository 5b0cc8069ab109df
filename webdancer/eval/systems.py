"""The systems that are put to the held-out questions: the agent, and three baselines that show what the questions demand.

- the agent: a whole episode with search and visit, by a model behind an API or by a local checkpoint;
- `closed_book`: the model's own answer, without tools;
- `one_search`: the model's answer from the snippets of one search for the question;
- `guess`: the most frequent answer of the kind among the training questions.
A question that an episode fails on for whatever reason stays in the denominator.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.calls.scope import call_scope
from webdancer.config import AgentSettings
from webdancer.errors import ModelError
from webdancer.judge.llm_judge import judge
from webdancer.judge.match import exact_match
from webdancer.llm.outage import MIN_FAILURES, HeldBack
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.records import QA, CotMode, EvalResult, Status, Trajectory
from webdancer.store import RecordWriter, read_records
from webdancer.synth.bounded import run_bounded
from webdancer.synth.filters import answer_from_one_search, answer_without_tools
from webdancer.synth.seeds import derive_seed
from webdancer.web.protocol import SearchProvider, ToolFailure

Answerer = Callable[[QA], Awaitable[tuple[str | None, Status, Trajectory | None]]]
"""Answers one question: the answer, how it ended, and the trajectory where there is one. May raise ModelError or ToolFailure."""


class EpisodeModel(ChatModel, Protocol):
    """A model for one episode, which keeps what it has read."""

    def close(self) -> None: ...


class Checkpoint(Protocol):
    """A local policy: every episode has a model of its own."""

    def episode(self, key: str) -> EpisodeModel: ...


def agent_answerer(
    model: ChatModel, toolbox: Toolbox, *, settings: AgentSettings, mode: CotMode, sampling: Sampling, seed: int
) -> Answerer:
    """One episode a question."""

    async def answer(qa: QA) -> tuple[str | None, Status, Trajectory | None]:
        trajectory = await run_episode(
            model,
            toolbox,
            trajectory_id=f"eval-{qa.id}",
            qa_id=qa.id,
            question=qa.question,
            settings=settings,
            mode=mode,
            sampling=sampling,
            seed=seed,
        )
        return trajectory.answer, trajectory.status, trajectory

    return answer


def policy_answerer(
    policy: Checkpoint, toolbox: Toolbox, *, settings: AgentSettings, mode: CotMode, sampling: Sampling, seed: int
) -> Answerer:
    """One episode a question of a local checkpoint; a question's seed follows from the run's and the question alone."""

    async def answer(qa: QA) -> tuple[str | None, Status, Trajectory | None]:
        own_seed = derive_seed(seed, "eval", qa.id)
        with closing(policy.episode(qa.id)) as episode:
            ask = agent_answerer(episode, toolbox, settings=settings, mode=mode, sampling=sampling, seed=own_seed)
            return await ask(qa)

    return answer


def closed_book_answerer(model: ChatModel) -> Answerer:
    """The model's own answer, without tools."""

    async def answer(qa: QA) -> tuple[str | None, Status, None]:
        return await answer_without_tools(model, qa.question), Status.ANSWERED, None

    return answer


def one_search_answerer(model: ChatModel, search: SearchProvider) -> Answerer:
    """The model's answer from the snippets of one search."""

    async def answer(qa: QA) -> tuple[str | None, Status, None]:
        return await answer_from_one_search(model, search, qa.question), Status.ANSWERED, None

    return answer


def guess_answerer(training: Sequence[QA]) -> Answerer:
    """The most frequent training answer of the question's kind; ties go to the first in the alphabet."""
    counts: dict[str, Counter[str]] = {}
    for qa in training:
        counts.setdefault(qa.kind, Counter())[qa.answer] += 1
    best = {kind: min(counter, key=lambda a: (-counter[a], a)) for kind, counter in counts.items()}

    async def answer(qa: QA) -> tuple[str | None, Status, None]:
        return best.get(qa.kind), Status.ANSWERED, None

    return answer


async def evaluate(
    system: str,
    qas: Sequence[QA],
    answerer: Answerer,
    *,
    judge_model: ChatModel,
    results: RecordWriter[EvalResult],
    trajectories: RecordWriter[Trajectory] | None = None,
    concurrency: int,
    on_progress: Callable[[int], None] = lambda num_done: None,
) -> None:
    """Put every question that has no result yet to one system; each ends as one `EvalResult` in `results`.

    An episode that `trajectories` holds without its result, because a run was killed in between, is scored as it stands.

    Raises:
        ModelError: a model failed for many questions in a row, or for all; these get no result, so that a resumed run asks
            them anew.
    """
    known = {} if trajectories is None else {t.qa_id: t for t in read_records(trajectories.path, Trajectory)}
    seen_working = any(not _has_failed(result) for result in read_records(results.path, EvalResult))
    held = HeldBack[tuple[EvalResult, Trajectory | None]](
        f"questions to {system}", most=max(MIN_FAILURES, concurrency), seen_working=seen_working
    )

    def write(result: EvalResult, trajectory: Trajectory | None) -> None:
        if trajectory is not None and trajectories is not None and trajectory.id not in trajectories.ids:
            trajectories.append(trajectory)
        results.append(result)

    async def run_one(qa: QA) -> None:
        with call_scope(f"{system}/{qa.id}", part=system):
            result, trajectory, problem = await _ask_one(system, qa, known.get(qa.id), answerer, judge_model)
        if _has_failed(result):
            held.add((result, trajectory), problem)
        else:
            for failed in held.succeed():
                write(*failed)
            write(result, trajectory)
        on_progress(1)

    todo = [qa for qa in qas if f"{system}/{qa.id}" not in results.ids]
    on_progress(len(qas) - len(todo))
    await run_bounded(run_one, todo, concurrency=concurrency)
    for failed in held.close():
        write(*failed)


def _has_failed(result: EvalResult) -> bool:
    return result.status is Status.MODEL_ERROR or result.correct is None


class _Scored(NamedTuple):
    """One result; `problem` is what the model or the judge said where it failed."""

    result: EvalResult
    trajectory: Trajectory | None
    problem: str


async def _ask_one(
    system: str, qa: QA, known: Trajectory | None, answerer: Answerer, judge_model: ChatModel
) -> _Scored:
    """Ask, unless the episode is known, and judge the answer."""
    answer: str | None
    try:
        answer, status, trajectory = (known.answer, known.status, known) if known else await answerer(qa)
        problem = trajectory.detail if trajectory else ""
    except (ModelError, ToolFailure) as error:
        answer, status, trajectory, problem = None, Status.MODEL_ERROR, None, str(error)
    correct: bool | None = False
    if answer:
        try:
            correct = (await judge(judge_model, question=qa.question, reference=qa.answer, answer=answer)).correct
        except ModelError as error:
            correct, problem = None, f"the judge: {error}"
    result = EvalResult(
        id=f"{system}/{qa.id}",
        system=system,
        qa_id=qa.id,
        kind=qa.kind,
        num_rewrites=qa.num_rewrites,
        answer=answer,
        correct=correct,
        exact_match=exact_match(qa.answer, answer or ""),
        status=status,
        num_actions=sum(1 for step in trajectory.steps if step.tool) if trajectory else 0,
        num_turns=len(trajectory.steps) if trajectory else 0,
        num_tokens=trajectory.num_tokens if trajectory else 0,
        num_hops=len(qa.evidence_urls),
        trajectory_id=trajectory.id if trajectory else None,
    )
    return _Scored(result, trajectory, problem)
