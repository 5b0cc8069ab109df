"""Shapes a model's reply as OpenAI's API has it: cut at stop strings and lengths, whole or as a stream of events."""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace

from webdancer.llm.protocol import ChatReply, SampledToken
from webdancer.serve.wire import ChatRequest, CompletionRequest

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


async def chat_events(head: Mapping[str, object], reply: ChatReply, request: ChatRequest) -> AsyncIterator[bytes]:
    """The reply as server-sent events: role, reasoning, content, finish, usage where asked for, `[DONE]`."""

    def delta(
        value: dict[str, object], tokens: Sequence[SampledToken] | None = None, finish: str | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": value, "logprobs": _chat_logprobs(tokens, request), "finish_reason": finish}
        return _event(head, "chat.completion.chunk", [choice], with_usage=request.with_usage())

    yield delta({"role": "assistant", "content": ""})
    for piece in _PIECE.findall(reply.reasoning or ""):
        yield delta({"reasoning_content": piece})
    for text, tokens in _pieces(reply):
        yield delta({"content": text}, tokens)
    yield delta({}, finish=reply.finish)
    if request.with_usage():
        yield _event(head, "chat.completion.chunk", [], with_usage=True, usage=_usage(reply))
    yield b"data: [DONE]\n\n"


async def text_events(head: Mapping[str, object], reply: ChatReply, request: CompletionRequest) -> AsyncIterator[bytes]:
    """The reply of a bare completion as server-sent events."""

    def event(choices: list[object], usage: dict[str, int] | None = None) -> bytes:
        return _event(head, "text_completion", choices, with_usage=request.with_usage(), usage=usage)

    offset = 0
    for text, tokens in _pieces(reply):
        yield event([_text_choice(text, tokens, request, finish=None, offset=offset)])
        offset += len(text)
    yield event([_text_choice("", None, request, finish=reply.finish)])
    if request.with_usage():
        yield event([], _usage(reply))
    yield b"data: [DONE]\n\n"


def _pieces(reply: ChatReply) -> Iterator[tuple[str, Sequence[SampledToken] | None]]:
    """The content in the chunks of a stream: token by token where these are told, each with text of its own."""
    if reply.tokens is None:
        for piece in _PIECE.findall(reply.content):
            yield piece, None
        return
    sampled = "".join(token.text for token in reply.tokens)
    if given := reply.content.removesuffix(sampled):  # what the chat's layout wrote at the head of the turn
        yield given, ()
    waiting: list[SampledToken] = []
    for token in reply.tokens:
        waiting.append(token)
        if token.text:
            yield token.text, waiting
            waiting = []


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
