"""An agent that is ready to be asked: a model with its tools, one episode a question.

What the command line, the API and the MCP server share: each asks, watches the steps as they happen, and shows the answer with
the pages that were read for it.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeAlias

from pydantic import JsonValue

from webdancer.agent.loop import OnStep, run_episode
from webdancer.agent.tools import Source, Toolbox, ToolResult
from webdancer.calls.ledger import Spent
from webdancer.config import AgentSettings
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.records import CotMode, Status, Step, Trajectory

OpenModel: TypeAlias = Callable[[str], AbstractContextManager[ChatModel]]
"""Gives the model of one episode, which is named by the argument."""


class Answered(NamedTuple):
    """How an episode ended."""

    trajectory: Trajectory
    sources: tuple[Source, ...]
    """Pages that were read, each once, in the order of the reading."""


class CallBegun(NamedTuple):
    """The model has made a call, which is being run."""

    step: Step
    """Without an observation."""


Events: TypeAlias = AsyncGenerator[CallBegun | Step | Answered | None, None]
"""What happens in an episode, and at last how it ended; None where nothing has happened for a while."""


class Agent:
    """Answers questions, several at once where it is asked so.

    Args:
        name: of the model.
        mode: how the model's thoughts come.
        temperature: None leaves it to the endpoint and its settings.
        spent: tells what all calls together have consumed.
        reads_conversations: the model can make sense of a question that follows on a conversation; one that was trained on
            single questions cannot.
    """

    def __init__(
        self,
        open_model: OpenModel,
        toolbox: Toolbox,
        settings: AgentSettings,
        *,
        name: str,
        mode: CotMode,
        seed: int,
        temperature: float | None,
        reads_conversations: bool,
        spent: Callable[[], Spent] = Spent,
    ) -> None:
        self.name, self.toolbox, self.settings = name, toolbox, settings
        self.reads_conversations = reads_conversations
        self.spent = spent
        self._open_model, self._mode, self._seed, self._temperature = open_model, mode, seed, temperature
        self._numbers = itertools.count(1)

    async def answer(self, question: str, *, on_turn: OnStep | None = None, on_step: OnStep | None = None) -> Answered:
        """Run one episode; see `run_episode`."""
        key = f"ask-{next(self._numbers)}"
        toolbox = _Noting(self.toolbox)
        with self._open_model(key) as model:
            trajectory = await run_episode(
                model,
                toolbox,
                trajectory_id=key,
                qa_id=key,
                question=question,
                settings=self.settings,
                mode=self._mode,
                sampling=Sampling(temperature=self._temperature),
                seed=self._seed,
                on_turn=on_turn,
                on_step=on_step,
            )
        return Answered(trajectory, tuple(toolbox.sources))

    async def events(self, question: str, *, idle_s: float | None = None) -> Events:
        """`answer`, event by event. Closing it ends the episode.

        Args:
            idle_s: after this long without an event, None is given in its place.
        """
        happened: asyncio.Queue[CallBegun | Step | None] = asyncio.Queue()
        episode = asyncio.create_task(
            self.answer(
                question, on_turn=lambda step: happened.put_nowait(CallBegun(step)), on_step=happened.put_nowait
            )
        )
        episode.add_done_callback(lambda _: happened.put_nowait(None))
        try:
            while True:
                try:
                    async with asyncio.timeout(idle_s):
                        event = await happened.get()
                except TimeoutError:
                    yield None
                    continue
                if event is None:
                    break
                yield event
            yield await episode
        finally:
            episode.cancel()
            await asyncio.gather(episode, return_exceptions=True)


class _Noting(Toolbox):
    """A toolbox that notes which pages it read; one an episode."""

    def __init__(self, inner: Toolbox) -> None:
        self._inner, self.extra = inner, inner.extra
        self._titles: dict[str, str] = {}

    @property
    def sources(self) -> list[Source]:
        return [Source(url, title) for url, title in self._titles.items()]

    def schemas(self) -> tuple[dict[str, JsonValue], ...]:
        return self._inner.schemas()

    async def call(self, name: str, arguments: dict[str, JsonValue]) -> ToolResult:
        result = await self._inner.call(name, arguments)
        for url, title in result.sources:
            self._titles.setdefault(url, title)
        return result


def why_unanswered(trajectory: Trajectory, settings: AgentSettings) -> str:
    """Why an episode has no answer, for people."""
    match trajectory.status:
        case Status.STEP_LIMIT:
            return f"the limit of {settings.max_steps} steps was reached"
        case Status.TOKEN_LIMIT:
            return f"the limit of {settings.max_tokens:,} tokens was reached"
        case Status.TIME_LIMIT:
            return f"the limit of {settings.max_seconds:g} s was reached"
        case Status.CONTEXT_FULL:
            return "the model's context is full"
        case Status.INVALID_FORMAT:
            return f"the model broke the format of its turns {settings.max_invalid_turns} times in a row"
        case _:
            return f"the model failed: {trajectory.detail}" if trajectory.detail else "the model failed"
