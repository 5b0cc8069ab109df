"""Shapes a model's reply as OpenAI's API has it: cut at stop strings and lengths, whole or as a stream of events."""

import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from webdancer.errors import WebdancerError
from webdancer.keys import redact
from webdancer.llm.protocol import ChatReply, ReplyParts, ReplyPiece, SampledToken
from webdancer.serve.wire import ChatRequest, CompletionRequest

_log = logging.getLogger(__name__)
_NOTHING_YET = ReplyPiece("")
"""A model's word that it is still at work. Clients leave comments of a stream aside, and proxies see that it lives."""
_PIECE = re.compile(r"\s*\w{1,12}|\s*[^\w\s]|\s+")
"""What counts as a token where the model does not count, and what one streamed chunk holds."""


def cut_at_stop(reply: ChatReply, stop: tuple[str, ...]) -> ChatReply:
    """Cut the content before the first stop string; the count of tokens shrinks with the text."""
    found = [at for text in stop if (at := reply.content.find(text)) >= 0]
    if not found:
        return reply
    content = reply.content[: min(found)]
    num_reasoning = len(_PIECE.findall(reply.reasoning or ""))
    num_pieces = num_reasoning + len(_PIECE.findall(reply.content))
    num_kept = num_reasoning + len(_PIECE.findall(content))
    num_tokens = reply.usage.completion_tokens * num_kept // num_pieces
    usage = reply.usage.model_copy(update={"completion_tokens": num_tokens})
    return replace(reply, content=content, finish="stop", usage=usage)


def cut_to_length(reply: ChatReply, max_tokens: int) -> ChatReply:
    """Cut reasoning and content together to `max_tokens` by the model's own count, else by words and marks.

    With the model's count only the total is known: the text is then cut to the same share of its pieces.
    """
    reasoning, content = _PIECE.findall(reply.reasoning or ""), _PIECE.findall(reply.content)
    num_pieces = len(reasoning) + len(content)
    num_tokens = reply.usage.completion_tokens or num_pieces
    if num_tokens <= max_tokens or reply.finish == "length":
        return reply
    num_kept = num_pieces * max_tokens // num_tokens
    return replace(
        reply,
        reasoning="".join(reasoning[:num_kept]) or None,
        content="".join(content[: max(0, num_kept - len(reasoning))]),
        finish="length",
        usage=reply.usage.model_copy(update={"completion_tokens": max_tokens}),
    )


def chat_completion(reply: ChatReply, request: ChatRequest) -> dict[str, object]:
    """The body of a chat completion, without its head."""
    message: dict[str, object] = {"role": "assistant", "content": reply.content, "refusal": None}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    logprobs = _chat_logprobs(reply.tokens, request)
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reply.finish}
    return {"object": "chat.completion", "choices": [choice], "usage": _usage(reply)}


def text_completion(reply: ChatReply, request: CompletionRequest) -> dict[str, object]:
    """The body of a completion, without its head."""
    choice = _text_choice(reply.content, reply.tokens, request, finish=reply.finish)
    return {"object": "text_completion", "choices": [choice], "usage": _usage(reply)}


async def parts_of(reply: ChatReply) -> ReplyParts:
    """A reply that is there already as the parts of a stream, in words and marks."""
    for piece in _PIECE.findall(reply.reasoning or ""):
        yield ReplyPiece("", reasoning=piece)
    for piece in _PIECE.findall(reply.content):
        yield ReplyPiece(piece)
    yield reply


async def chat_events(head: Mapping[str, object], parts: ReplyParts, request: ChatRequest) -> AsyncIterator[bytes]:
    """A reply as server-sent events: role, reasoning, content, finish, usage where asked for, `[DONE]`."""

    def chunk(
        value: dict[str, object], tokens: Sequence[SampledToken] | None = None, finish: str | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": value, "logprobs": _chat_logprobs(tokens, request), "finish_reason": finish}
        return _event(head, "chat.completion.chunk", [choice], with_usage=request.with_usage())

    def delta(piece: ReplyPiece) -> bytes:
        if piece == _NOTHING_YET:
            return b": keep-alive\n\n"
        if piece.reasoning:
            return chunk({"reasoning_content": piece.reasoning})
        return chunk({"content": piece.content}, piece.tokens)

    def end(reply: ChatReply) -> bytes:
        usage = _event(head, "chat.completion.chunk", [], with_usage=True, usage=_usage(reply))
        return chunk({}, finish=reply.finish) + (usage if request.with_usage() else b"")

    yield chunk({"role": "assistant", "content": ""})
    async for event in _events(parts, delta, end):
        yield event


async def text_events(
    head: Mapping[str, object], parts: ReplyParts, request: CompletionRequest
) -> AsyncIterator[bytes]:
    """The reply of a bare completion as server-sent events."""
    offset = 0

    def event(choices: list[object], usage: dict[str, int] | None = None) -> bytes:
        return _event(head, "text_completion", choices, with_usage=request.with_usage(), usage=usage)

    def delta(piece: ReplyPiece) -> bytes:
        nonlocal offset
        start, offset = offset, offset + len(piece.content)
        return event([_text_choice(piece.content, piece.tokens, request, finish=None, offset=start)])

    def end(reply: ChatReply) -> bytes:
        last = event([_text_choice("", None, request, finish=reply.finish)])
        return last + (event([], _usage(reply)) if request.with_usage() else b"")

    async for part in _events(parts, delta, end):
        yield part


async def _events(
    parts: ReplyParts, delta: Callable[[ReplyPiece], bytes], end: Callable[[ChatReply], bytes]
) -> AsyncIterator[bytes]:
    """The events of the pieces and of the end. A failure in mid-stream is an event, too: the status has been sent."""
    async with aclosing(parts):
        try:
            async for part in parts:
                yield end(part) if isinstance(part, ChatReply) else delta(part)
        except Exception as error:
            _log.exception("a reply broke off")
            is_ours = isinstance(error, WebdancerError)
            message = redact(str(error)) if is_ours else f"the server failed: {type(error).__name__}"
            yield b"data: " + dumps(error_body(message, kind="api_error", code="model_error")) + b"\n\n"
            return
    yield b"data: [DONE]\n\n"


def error_body(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> dict[str, object]:
    """An error as OpenAI's API tells it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _chat_logprobs(tokens: Sequence[SampledToken] | None, request: ChatRequest) -> dict[str, object] | None:
    if tokens is None or not request.logprobs:
        return None

    def entry(token: SampledToken) -> dict[str, object]:
        own = {"token": token.text, "logprob": token.logprob, "bytes": list(token.text.encode("utf-8", "replace"))}
        return own | {"top_logprobs": [own] if request.top_logprobs else []}

    return {"content": [entry(token) for token in tokens], "refusal": None}


def _text_choice(
    text: str,
    tokens: Sequence[SampledToken] | None,
    request: CompletionRequest,
    *,
    finish: str | None,
    offset: int = 0,
) -> dict[str, object]:
    choice: dict[str, object] = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    if tokens is None:
        return choice
    if request.logprobs is not None:
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        choice["logprobs"] = {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{token.text: token.logprob} for token in tokens] if request.logprobs else None,
            "text_offset": offsets,
        }
    if request.return_token_ids:
        choice["token_ids"] = [token.id for token in tokens]
    return choice


def _event(
    head: Mapping[str, object],
    kind: str,
    choices: Sequence[object],
    *,
    with_usage: bool,
    usage: dict[str, int] | None = None,
) -> bytes:
    chunk = {**head, "object": kind, "choices": choices}
    return b"data: " + dumps(chunk | {"usage": usage} if with_usage else chunk) + b"\n\n"


def _usage(reply: ChatReply) -> dict[str, int]:
    prompt, completion = reply.usage.prompt_tokens, reply.usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def dumps(value: object) -> bytes:
    """UTF-8 JSON; half surrogate pairs, which models can write, become `?`."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
