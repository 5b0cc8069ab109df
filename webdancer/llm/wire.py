"""Reads chat completions as endpoints send them: whole, or put together from the chunks of a stream.

A reply becomes one turn's text, whichever way its parts came:
- reasoning: `reasoning_content` (DeepSeek, DashScope, SGLang, llama.cpp), `reasoning` (OpenRouter, vLLM, Ollama) or OpenRouter's
  `reasoning_details`. A half-open block in an agent's turn, `…</think>`, comes of a chat template that opened it: it is the
  reasoning too. A whole `<think>` block stays in the content: the agent's parser takes it for the thought.
- native tool calls: `<tool_call>` blocks in the content, with the arguments as the model wrote them. Text beside a call that
  holds no tag of ours is the call's thought.
"""

import json
import re
from dataclasses import replace
from typing import NamedTuple

from pydantic import BaseModel, JsonValue, ValidationError

from webdancer.keys import redact
from webdancer.llm.failures import BrokenOff, read_error, shortened
from webdancer.llm.native_tools import TAG, call_block
from webdancer.llm.protocol import ChatReply
from webdancer.records import Usage

_STOPPED = frozenset({"stop", "tool_calls", "function_call", "eos", "eos_token", "stop_sequence", "end_turn"})
_CUT = frozenset({"length", "max_tokens"})
_FAILED = frozenset({"", "error", "abort", "insufficient_system_resource"})
"""OpenRouter, vLLM and SGLang, DeepSeek: the server gave up, and may not the next time."""
_HALF_OPEN = re.compile(r"((?:(?!<think>).)*?)</think>", re.DOTALL)
_ACTION_END = re.compile(r"</(?:tool_call|answer)>")
_TWO_THOUGHTS = re.compile(r"\s*<think>((?:(?!</?think>).)*)</think>(?=\s*<think>)", re.DOTALL)


class NoCompletionError(Exception):
    """What came with status 200 is no chat completion. Its text says what it is."""


class _Function(BaseModel):
    name: str | None = None
    arguments: JsonValue = None


class _Call(BaseModel):
    index: int | None = None
    id: str | None = None
    function: _Function


class _Detail(BaseModel):
    """One part of OpenRouter's `reasoning_details`; encrypted parts have neither field."""

    text: str | None = None
    summary: str | None = None


class _Message(BaseModel):
    """A message, or what a chunk adds to it."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[_Detail] | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(BaseModel):
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    """vLLM: the stop string that ended the reply, or the id of a token."""
    matched_stop: int | str | None = None
    """SGLang's name for it."""


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _CompletionDetails(BaseModel):
    reasoning_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's name for the cached ones."""
    completion_tokens_details: _CompletionDetails | None = None


class _Body(BaseModel):
    """The part of a completion or a chunk that is read; everything else is ignored."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: JsonValue = None


class _WrittenCall:
    """A tool call under way."""

    def __init__(self, call_id: str | None) -> None:
        self.id, self.name, self.arguments = call_id, "", ""


class Answer:
    """One answer, as far as it has come.

    Args:
        stop: the content ends before the first of these strings, which an endpoint may not have looked for.
    """

    def __init__(self, *, stop: tuple[str, ...] = ()) -> None:
        self._stop = stop
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_WrittenCall] = []
        self._by_index: dict[int, _WrittenCall] = {}
        self._finish: str | None = None
        self._tail = ""  # of the content, long enough to hold a stop string
        self._stopped_at: str | None = None
        self._usage: _Usage | None = None
        self._is_stream = self._is_done = self._is_empty = False

    @property
    def num_reasoning_tokens(self) -> int:
        """Tokens of reasoning that the endpoint counted, shown or not."""
        details = self._usage.completion_tokens_details if self._usage else None
        return (details.reasoning_tokens if details else None) or 0

    def read_event(self, data: str) -> bool:
        """Take in one event of a stream. True where the rest is of no use: a stop string has come.

        Raises:
            ServerError, BrokenOff, NoCompletionError: it tells of an error, is half, or something else.
        """
        self._is_stream = True
        if data.strip() == "[DONE]":
            self._is_done = True
            return False
        body = self._parsed(data)
        self._add(body)
        return bool(self._stop and body.choices) and self._has_come_to_stop()

    def _has_come_to_stop(self) -> bool:
        """Whether the newest content completes a stop string, which may be spread over several chunks."""
        self._tail += self._content[-1]
        if not any(stop in self._tail for stop in self._stop):
            self._tail = self._tail[-max(map(len, self._stop)) :]
            return False
        self._finish, self._is_done = "stop", True
        return True

    def read_whole(self, text: str) -> None:
        """Take in a whole completion.

        Raises:
            ServerError, BrokenOff, NoCompletionError: as above.
        """
        body = self._parsed(text)
        self._is_empty = not body.choices
        self._add(body)

    def _parsed(self, text: str) -> _Body:
        try:
            body = _Body.model_validate_json(text)
        except ValidationError as error:
            broken = error.errors(include_url=False)[0]["type"] == "json_invalid"
            if broken and (not text.strip() or text.lstrip()[0] in "{["):
                raise BrokenOff(f"its JSON ends too early: …{redact(shortened(text[-80:]))}") from None
            raise NoCompletionError(
                f"is no chat completion: {redact(shortened(text))!r}; check base_url (it often ends in /v1)"
            ) from None
        if body.error is not None:
            raise read_error(200, {}, text, in_answer=True)
        return body

    def _add(self, body: _Body) -> None:
        self._usage = body.usage or self._usage
        if not body.choices:
            return
        choice = body.choices[0]
        self._add_part(choice.message or choice.delta or _Message())
        self._finish = choice.finish_reason or self._finish
        matched = choice.stop_reason if choice.stop_reason is not None else choice.matched_stop
        self._stopped_at = matched if isinstance(matched, str) else self._stopped_at

    def _add_part(self, part: _Message) -> None:
        self._content.append(part.content or "")
        reasoning = part.reasoning_content or part.reasoning
        if not reasoning and part.reasoning_details:
            reasoning = "".join(detail.text or detail.summary or "" for detail in part.reasoning_details)
        self._reasoning.append(reasoning or "")
        for call in part.tool_calls or ():
            self._add_call(call)
        if part.function_call is not None:  # the name of tool calls before there were several
            self._add_call(_Call(index=0, function=part.function_call))

    def _add_call(self, call: _Call) -> None:
        """Begin a call, or go on with one. Some servers number all calls 0: another id and a name begin another one."""
        index = len(self._calls) if call.index is None else call.index
        written = self._by_index.get(index)
        if written is None or (call.id and written.id and call.id != written.id and call.function.name):
            written = self._by_index[index] = _WrittenCall(call.id)
            self._calls.append(written)
        written.name += call.function.name or ""
        arguments = call.function.arguments
        if arguments is not None:
            written.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)

    def reply(self, *, is_turn: bool, long_cot: bool) -> ChatReply:
        """The reply, once all of it has come.

        Args:
            is_turn: it is one of the agent's: a half-open think block is its reasoning. Other roles may quote such a tag.
            long_cot: of two think blocks at the head of the content, the first is the reasoning.

        Raises:
            BrokenOff: it does not say that it ended, so it may be cut.
            NoCompletionError: it holds no choices, or ended for a reason that leaves it incomplete.
        """
        if self._is_empty:
            raise NoCompletionError("holds no choices")
        finish = (self._finish or "").lower()
        if self._is_stream and finish and not self._is_done:
            raise BrokenOff("the stream ended without [DONE]")
        if finish in _FAILED:
            raise BrokenOff(f"got finish_reason {self._finish!r}, expected 'stop', 'length' or 'tool_calls'")
        if finish not in _STOPPED | _CUT:
            raise NoCompletionError(
                f"is not complete: got finish_reason {self._finish!r}, expected 'stop', 'length' or 'tool_calls'; "
                "run the same command again, or use another model"
            )
        content, reasoning = "".join(self._content), "".join(self._reasoning)
        if is_turn and not reasoning.strip():
            content, reasoning = _split_reasoning(content, long_cot=long_cot)
        content = _with_calls(content, [call_block(call.name, call.arguments) for call in self._calls])
        reply = ChatReply(
            content,
            reasoning=reasoning or None,
            finish="length" if finish in _CUT else "stop",
            usage=self.usage(),
            cut_at=self._stopped_at if self._stopped_at in self._stop else None,
            usage_told=self._usage is not None and self._usage.prompt_tokens is not None,
        )
        return cut_reply(reply, self._stop)

    def usage(self) -> Usage:
        """What the endpoint says that the call consumed; only the call where it says nothing."""
        usage = self._usage or _Usage()
        details = usage.prompt_tokens_details or _PromptDetails()
        return Usage(
            prompt_tokens=usage.prompt_tokens or 0,
            cached_tokens=details.cached_tokens or usage.prompt_cache_hit_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
            llm_calls=1,
        )


class _Split(NamedTuple):
    content: str
    reasoning: str


def _split_reasoning(content: str, *, long_cot: bool) -> _Split:
    """The content without what of it is reasoning, and that."""
    found = _HALF_OPEN.match(content) or (_TWO_THOUGHTS.match(content) if long_cot else None)
    return _Split(content[found.end() :], found.group(1)) if found and found.group(1).strip() else _Split(content, "")


def _with_calls(content: str, blocks: list[str]) -> str:
    """The turn's text: what stands beside native calls, and they."""
    if not blocks:
        return content
    beside = content.strip()
    if beside and not TAG.search(beside):
        beside = f"<think>\n{beside}\n</think>"
    return "\n".join([*([beside] if beside else []), *blocks])


def cut_reply(reply: ChatReply, stop: tuple[str, ...]) -> ChatReply:
    """The reply up to the first stop string, as an endpoint cuts it that knows `stop`; `cut_at` tells where.

    Where stop strings are wanted and a limit cut the text behind the end of its first action, what follows the action is left out
    too: the stop string would have come there. It stays where it opens another block, for that is a mistake to be seen.
    """
    found = [(at, text) for text in stop if (at := reply.content.find(text)) >= 0]
    if found:
        at, text = min(found)
        return replace(reply, content=reply.content[:at], finish="stop", cut_at=text)
    if not stop or reply.finish != "length":
        return reply
    end = _ACTION_END.search(reply.content)
    rest = reply.content[end.end() :] if end else ""
    if end is None or not rest.strip() or TAG.search(rest):
        return reply
    return replace(reply, content=reply.content[: end.end()], cut_at=end.group())
