"""The append-only transcript of an episode: its turns as data, rendered to chat messages.

Messages are made once, when something is added, and never changed: a model with a prefix cache reads each of them once.
Turns stay as data (`entries`), so that they can be rendered to token ids as well. The long-CoT teacher's view leaves the
thoughts of its earlier turns out (paper, section 3.1); every other view keeps them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from webdancer.agent.format import (
    ToolCall,
    Turn,
    break_control_tokens,
    neutralise,
    render_tool_response,
    render_turn,
)
from webdancer.agent.tools import render_schemas
from webdancer.llm.prompts import Section, fill_prompt, load_prompt
from webdancer.llm.protocol import Message
from webdancer.records import Status, Step, Trajectory

_THINK = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ModelTurn:
    """What the model wrote. `text` is the whole turn, `action` the same without its thought."""

    text: str
    action: str


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What was put to the model: the question, an observation, the demand for an answer."""

    text: str


Entry = ModelTurn | UserTurn


class Transcript:
    """One episode as the model sees it.

    Args:
        question: text from outside; it is neutralised.
        schemas: the tools, for the system prompt.
        prompt: name of the system prompt.
        omit_thoughts: the long-CoT teacher's view.
    """

    def __init__(
        self,
        question: str,
        schemas: Sequence[dict[str, JsonValue]],
        *,
        prompt: str = "agent",
        omit_thoughts: bool = False,
    ) -> None:
        self._omit_thoughts = omit_thoughts
        self._entries: list[Entry] = []
        self._messages = [Message("system", system_prompt(prompt, schemas))]
        self._add_user(neutralise(question))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The turns so far; the first is the question."""
        return tuple(self._entries)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The chat messages so far: system, question, then turns and observations in turn."""
        return tuple(self._messages)

    def add_step(self, step: Step, *, answer: str | None = None) -> None:
        """Add a turn of the model (with `answer` where it holds one) and the observation that answers it, if any."""
        turn = model_turn(step, answer=answer)
        self._entries.append(turn)
        self._messages.append(Message("assistant", turn.action if self._omit_thoughts else turn.text))
        if step.observation is not None:
            self._add_user(render_tool_response(step.observation))

    def demand_answer(self) -> None:
        """Tell the model that no more calls are possible and that its answer is wanted now."""
        self._add_user(load_prompt("force_answer"))

    def keep_thoughts(self) -> None:
        """Leave thoughts in from now on: the model turns out to have no reasoning of its own."""
        self._omit_thoughts = False

    def _add_user(self, text: str) -> None:
        self._entries.append(UserTurn(text))
        last = self._messages[-1]
        if last.role == "user":  # chat templates want the roles to alternate; the model has not seen `last` yet
            self._messages[-1] = Message("user", f"{last.content}\n\n{text}")
        else:
            self._messages.append(Message("user", text))


def system_prompt(name: str, schemas: Sequence[dict[str, JsonValue]]) -> str:
    """The system prompt of that name, with the tools where it has a section for them (the brief one has none).

    Raises:
        PromptError: there is no such prompt, or it is none for an agent.
    """
    if "{{tools}}" in load_prompt(name):
        return fill_prompt(name, tools=Section(neutralise(render_schemas(schemas))))
    return fill_prompt(name)


def model_turn(step: Step, *, answer: str | None = None) -> ModelTurn:
    """The turn of a step: as the model wrote it where it broke the format, else in the layout of the release."""
    if step.raw is not None:
        text = break_control_tokens(step.raw)
        return ModelTurn(text, _THINK.sub("", text))
    call = None if step.tool is None else ToolCall(step.tool, step.arguments)
    turn = Turn(step.thought, call, answer if call is None else None)
    text = render_turn(turn)
    return ModelTurn(text, text.partition("</think>\n")[2])  # a thought holds no tag


def replay(
    trajectory: Trajectory,
    schemas: Sequence[dict[str, JsonValue]],
    *,
    prompt: str = "agent",
    omit_thoughts: bool = False,
) -> Transcript:
    """The transcript of a finished episode, as training reads it (thoughts kept unless asked otherwise).

    `prompt` names the system prompt that the episode ran under; the trajectory does not hold it. The demand for a forced
    answer stands before the last turn of an episode that ended by one.
    """
    transcript = Transcript(trajectory.question, schemas, prompt=prompt, omit_thoughts=omit_thoughts)
    last = len(trajectory.steps) - 1
    for i, step in enumerate(trajectory.steps):
        if i == last and trajectory.status is Status.FORCED_ANSWER:
            transcript.demand_answer()
        transcript.add_step(step, answer=trajectory.answer if i == last else None)
    return transcript
