"""The scribe: a rule-based reader of controlled English in the seat of a language model.

It stands behind the chat protocol like any model and plays every role from the prompt's text alone: the role by the
`Role:` line, the data by the tag sections. It departs from the paper, whose roles are played by GPT-4o, QwQ and Qwen-72B;
with it the whole pipeline runs without a key and is the same on every machine.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from webdancer.config import ScribeFaultSettings
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import CotMode, Usage
from webdancer.scribe import prompt as prompts
from webdancer.scribe.agent import take_turn
from webdancer.scribe.describer import describe, pick, rewrite
from webdancer.scribe.faults import FaultLog
from webdancer.scribe.reviewer import answer_directly, criticise, judge
from webdancer.scribe.summariser import summarise
from webdancer.scribe.writer import write_questions

_CHARS_PER_TOKEN = 4
_NUM_QUESTIONS = 3
"""Questions written where the prompt does not say how many."""


class Scribe:
    """Implements `ChatModel`.

    Args:
        mode: short CoT writes the thought before the action; long CoT gives it as separate reasoning.
        faults: rates of faults planted into episodes; None for none.
        fault_log: file that the planted faults' labels are appended to, as JSON lines.
        shortcuts: share of steps at which the searcher takes the word of a post and leaves the page unread.
        vary: whether the searcher says the same in various words.
    """

    def __init__(
        self,
        *,
        mode: CotMode = CotMode.SHORT,
        faults: ScribeFaultSettings | None = None,
        fault_log: Path | None = None,
        shortcuts: float = 0.0,
        vary: bool = True,
    ) -> None:
        self._mode, self._faults, self._log = mode, faults, FaultLog(fault_log)
        self._shortcuts, self._vary = shortcuts, vary

    @property
    def name(self) -> str:
        return "scribe-reasoner" if self._mode is CotMode.LONG else "scribe"

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """Answer `messages` in the role that they name; without a role, as the agent. Never raises."""
        role, prompt = prompts.find_role(messages)
        if role in _ROLES:
            content = json.dumps(_ROLES[role](prompt, sampling), ensure_ascii=False)
            return self._reply(messages, content, None, sampling)
        turn = take_turn(messages, sampling, self._mode, self._faults, shortcuts=self._shortcuts, vary=self._vary)
        if turn.fault is not None:
            self._log.add(turn.fault, seed=sampling.seed, question=turn.question, turn=turn.turn)
        if self._mode is CotMode.LONG:
            return self._reply(messages, turn.action, turn.thought, sampling)
        return self._reply(messages, f"<think>\n{turn.thought}\n</think>\n{turn.action}", None, sampling)

    def _reply(self, messages: Sequence[Message], content: str, reasoning: str | None, sampling: Sampling) -> ChatReply:
        """The reply, cut where the sampling settings say so, with an estimate of its usage."""
        for stop in sampling.stop:
            content = content.split(stop, 1)[0]
        finish = "stop"
        if sampling.max_tokens is not None and len(content) > sampling.max_tokens * _CHARS_PER_TOKEN:
            content, finish = content[: sampling.max_tokens * _CHARS_PER_TOKEN], "length"
        usage = Usage(
            prompt_tokens=sum(len(m.content) for m in messages) // _CHARS_PER_TOKEN,
            completion_tokens=(len(content) + len(reasoning or "")) // _CHARS_PER_TOKEN + 1,
            llm_calls=1,
        )
        return ChatReply(content, reasoning, "length" if finish == "length" else "stop", usage)


def _write(prompt: str, sampling: Sampling) -> dict[str, object]:
    num = prompts.find_number(prompt) or _NUM_QUESTIONS
    rng = prompts.seeded("writer", sampling.seed, prompts.draw_text("writer", prompt, num))
    written = write_questions(prompts.section(prompt, "kind"), prompts.pages(prompt), num, rng)
    return {"questions": [{"question": q.text, "answer": q.answer, "evidence_urls": list(q.urls)} for q in written]}


def _pick(prompt: str, sampling: Sampling) -> dict[str, object]:
    introduced = prompts.section(prompt, "introduced").splitlines()
    rng = prompts.seeded("picker", sampling.seed, prompts.draw_text("picker", prompt))
    return pick(prompts.section(prompt, "question"), prompts.section(prompt, "answer"), introduced, rng)._asdict()


def _describe(prompt: str, sampling: Sampling) -> dict[str, object]:
    question, answer, entity = (prompts.section(prompt, tag) for tag in ("question", "answer", "entity"))
    rng = prompts.seeded("describer", sampling.seed, prompts.draw_text("describer", prompt))
    return describe(question, answer, entity, prompts.pages(prompt), rng)._asdict()


def _rewrite(prompt: str, sampling: Sampling) -> dict[str, object]:
    question, entity, description = (prompts.section(prompt, tag) for tag in ("question", "entity", "description"))
    return {"question": rewrite(question, entity, description)}


def _summarise(prompt: str, sampling: Sampling) -> dict[str, object]:
    pages = prompts.pages(prompt)
    _, title, text = pages[0] if pages else ("", "", prompts.section(prompt, "page"))
    return summarise(prompts.section(prompt, "goal"), title, text)._asdict()


def _judge(prompt: str, sampling: Sampling) -> dict[str, object]:
    return judge(prompts.section(prompt, "reference"), prompts.section(prompt, "answer"))._asdict()


def _criticise(prompt: str, sampling: Sampling) -> dict[str, object]:
    return criticise(prompts.section(prompt, "question"), prompts.section(prompt, "trajectory"))._asdict()


def _answer(prompt: str, sampling: Sampling) -> dict[str, object]:
    return {"answer": answer_directly(prompts.section(prompt, "question"), prompts.section(prompt, "results"))}


_ROLES: dict[str, Callable[[str, Sampling], dict[str, object]]] = {
    "writer": _write,
    "picker": _pick,
    "describer": _describe,
    "rewriter": _rewrite,
    "summariser": _summarise,
    "judge": _judge,
    "critic": _criticise,
    "answerer": _answer,
}
