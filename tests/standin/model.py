"""The stand-in behind the chat protocol: a prompt's role decides who answers it."""

import json
import random
import re
from collections.abc import Callable, Sequence

from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import Usage

from . import rewriting
from .agent import Slips, take_turn
from .observations import read_episode
from .prompt import is_reask, pages, rng_of, role_of, section
from .reviewing import answer_directly, criticise, judge, summarise
from .writer import write_questions

CHARS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
"""What a chat template puts around a message."""


class StandIn:
    """Implements `ChatModel`.

    Args:
        is_reasoner: gives its thoughts as separate reasoning, as reasoning models do.
        slips: rates of its mistakes.
    """

    def __init__(self, *, is_reasoner: bool = False, slips: Slips | None = None) -> None:
        self._is_reasoner, self._slips = is_reasoner, slips or Slips()

    @property
    def name(self) -> str:
        return "standin-reasoner" if self._is_reasoner else "standin"

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """Answer in the role that the messages name; the same messages and seed get the same answer. Never raises."""
        role, prompt = role_of(messages)
        if role not in _ROLES:
            thought, action = take_turn(read_episode(messages), seed=sampling.seed, slips=self._slips)
            content = action if self._is_reasoner else f"<think>\n{thought}\n</think>\n{action}"
            return self._reply(messages, content, thought if self._is_reasoner else None)
        rng = rng_of(role, sampling.seed, prompt)
        content = json.dumps(_ROLES[role](prompt, rng, self._slips), ensure_ascii=False)
        if not is_reask(messages) and rng.random() < self._slips.malformed:
            content = f"Here is what you asked for:\n{content[:-1]}"
        return self._reply(messages, content, "This needs a careful look." if self._is_reasoner else None)

    def _reply(self, messages: Sequence[Message], content: str, reasoning: str | None) -> ChatReply:
        num_chars = sum(len(message.content) for message in messages)
        usage = Usage(
            prompt_tokens=num_chars // CHARS_PER_TOKEN + _TOKENS_PER_MESSAGE * len(messages),
            completion_tokens=(len(content) + len(reasoning or "")) // CHARS_PER_TOKEN + 1,
            llm_calls=1,
        )
        return ChatReply(content, reasoning, usage=usage)


def _write(prompt: str, rng: random.Random, slips: Slips) -> dict[str, object]:
    kind, shown = section(prompt, "kind"), pages(prompt)
    asked_for = re.search(r"rite (?:up to |at most )?(\d+) questions?", prompt)
    num = int(asked_for[1]) if asked_for else 1
    return {"questions": write_questions(kind, shown, num=num, rng=rng, miscount=slips.miscount)}


def _pick(prompt: str, _: random.Random, __: Slips) -> dict[str, object]:
    return rewriting.pick(section(prompt, "question"), section(prompt, "answer"))


def _describe(prompt: str, rng: random.Random, _: Slips) -> dict[str, object]:
    question, answer, entity = (section(prompt, tag) for tag in ("question", "answer", "entity"))
    return rewriting.describe(question, answer, entity, pages(prompt), rng)


def _rewrite(prompt: str, _: random.Random, __: Slips) -> dict[str, object]:
    question, entity, description = (section(prompt, tag) for tag in ("question", "entity", "description"))
    return rewriting.rewrite(question, entity, description)


def _summarise(prompt: str, _: random.Random, __: Slips) -> dict[str, object]:
    return summarise(section(prompt, "goal"), pages(prompt)[0])


def _judge(prompt: str, _: random.Random, __: Slips) -> dict[str, object]:
    return judge(section(prompt, "reference"), section(prompt, "answer"))


def _criticise(prompt: str, _: random.Random, __: Slips) -> dict[str, object]:
    return criticise(section(prompt, "question"), section(prompt, "trajectory"))


def _answer(prompt: str, rng: random.Random, _: Slips) -> dict[str, object]:
    return answer_directly(section(prompt, "question"), section(prompt, "results"), rng)


_ROLES: dict[str, Callable[[str, random.Random, Slips], dict[str, object]]] = {
    "writer": _write,
    "picker": _pick,
    "describer": _describe,
    "rewriter": _rewrite,
    "summariser": _summarise,
    "judge": _judge,
    "critic": _criticise,
    "answerer": _answer,
}
