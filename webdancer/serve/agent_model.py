"""The whole agent as one chat model: a request is a question, its reasoning the steps of the episode, its content the answer.

The last message is the question. Of what was said before, an agent that can make use of it is told the last turns, as text that
the question is about; a system message is left out, since the agent has its own. Sampling settings and `max_tokens` of the
request are let pass: the limits of an episode are those of `[agent]`.
"""

import json
import re
from collections.abc import Sequence
from contextlib import aclosing

from webdancer.agent.answering import Agent, Answered, CallBegun, why_unanswered
from webdancer.errors import BadRequestError, ModelError
from webdancer.keys import redact
from webdancer.llm.prompts import fill_prompt
from webdancer.llm.protocol import ChatReply, Message, ReplyParts, ReplyPiece, Sampling
from webdancer.records import Status, Step
from webdancer.serve.inert import inert, source_line

_MAX_EARLIER = 6
_MAX_EARLIER_CHARS = 2000
"""Of one earlier message."""
_MAX_SHOWN_CHARS = 300
_THINK = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_GUESS = "\n\n(A limit was reached: this is the best guess.)"
_LIMITS = (Status.STEP_LIMIT, Status.TOKEN_LIMIT, Status.TIME_LIMIT, Status.CONTEXT_FULL)


class AgentModel:
    """An agent behind the protocol of chat, whole or step by step.

    Args:
        name: under which clients ask for it.
        think_tags: put the steps between `<think>` tags into the content, for clients that do not know `reasoning_content`.
        keep_alive_s: a stream that has had nothing to tell for so long tells that it is still there.
    """

    def __init__(self, agent: Agent, *, name: str, think_tags: bool = False, keep_alive_s: float = 15.0) -> None:
        self.name = name
        self._agent, self._think_tags, self._keep_alive_s = agent, think_tags, keep_alive_s

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """The answer, with the steps as reasoning.

        Raises:
            BadRequestError: the last message is no question.
            ModelError: the model behind the agent failed.
        """
        async with aclosing(self.stream_chat(messages, sampling)) as parts:
            async for part in parts:
                if isinstance(part, ChatReply):
                    return part
        raise AssertionError("an agent's pieces ended without the reply")

    async def stream_chat(self, messages: Sequence[Message], sampling: Sampling) -> ReplyParts:
        """`chat`, step by step. Closing it ends the episode."""
        question = self._question(messages)
        told: list[ReplyPiece] = []
        async with aclosing(self._agent.events(question, idle_s=self._keep_alive_s)) as events:
            async for event in events:
                if event is None:
                    yield ReplyPiece("")
                    continue
                if isinstance(event, Answered):
                    break
                if text := _begun(event.step) if isinstance(event, CallBegun) else _done(event):
                    piece = self._thinking(text, is_first=not told)
                    told.append(piece)
                    yield piece
        assert isinstance(event, Answered)
        content = ("</think>\n\n" if self._think_tags and told else "") + self._content(event)
        yield ReplyPiece(content)
        yield ChatReply(
            "".join(piece.content for piece in told) + content,
            "".join(piece.reasoning for piece in told) or None,
            "length" if event.trajectory.answer is None and event.trajectory.status in _LIMITS else "stop",
            event.trajectory.usage,
        )

    def _thinking(self, text: str, *, is_first: bool) -> ReplyPiece:
        if not self._think_tags:
            return ReplyPiece("", reasoning=text)
        return ReplyPiece("<think>\n" + text if is_first else text)

    def _question(self, messages: Sequence[Message]) -> str:
        """The question that the last message holds, with what was said before where that helps."""
        last = messages[-1]
        if last.role != "user" or not last.content.strip():
            raise BadRequestError(
                f"got a last message of the role {last.role!r}, expected one of the user's, not empty"
            )
        earlier = [message for message in messages[:-1] if message.role != "system"]
        if not earlier or not self._agent.reads_conversations:
            return last.content.strip()
        conversation = "\n".join(f"{message.role}: {_said(message)}" for message in earlier[-_MAX_EARLIER:])
        return fill_prompt("conversation", conversation=conversation, question=last.content.strip())

    def _content(self, answered: Answered) -> str:
        """What the client is told at the end.

        Raises:
            ModelError: the model behind the agent failed.
        """
        trajectory = answered.trajectory
        if trajectory.status is Status.MODEL_ERROR:
            raise ModelError(redact(f"the model {self._agent.name!r} of the agent failed: {trajectory.detail}"))
        if trajectory.answer is None:
            text = f"No answer was found: {why_unanswered(trajectory, self._agent.settings)}."
        else:
            text = inert(trajectory.answer) + (_GUESS if trajectory.status is Status.FORCED_ANSWER else "")
        sources = [f"- {source_line(source)}" for source in answered.sources]
        return "\n".join([text, "", "Sources:", *sources]) if sources else text


def _said(message: Message) -> str:
    """An earlier message without the steps that led to it."""
    text = _THINK.sub("", message.content).strip()
    return text if len(text) <= _MAX_EARLIER_CHARS else text[:_MAX_EARLIER_CHARS] + " …"


def _begun(step: Step) -> str:
    """A thought and the call that it led to."""
    return f"{inert(step.thought)}\n\n→ {inert(describe_call(step))}\n\n"


def _done(step: Step) -> str:
    """What there is to tell of a complete step: its call, if it has one, has been told."""
    if step.error is not None:
        thought = f"{inert(step.thought)}\n\n" if step.tool is None and step.thought else ""
        return f"{thought}✗ {inert(_cut(step.observation or step.error))}\n\n"
    return "" if step.tool else f"{inert(step.thought)}\n"


def describe_call(step: Step) -> str:
    """A call in one line for people."""
    arguments = step.arguments
    told: object
    match step.tool:
        case "search":
            year = arguments.get("filter_year")
            told = _listed(arguments.get("query")) + (f" ({year})" if year else "")
        case "visit":
            told = f"{_listed(arguments.get('url', arguments.get('url_link')))} — {arguments.get('goal')}"
        case _:
            told = json.dumps(arguments, ensure_ascii=False)
    return f"{step.tool}: {_cut(str(told))}"


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN_CHARS else line[: _MAX_SHOWN_CHARS - 1] + "…"
