"""Serves any chat model behind an OpenAI-compatible HTTP API: `/v1/chat/completions` (streaming too) and `/v1/models`.

The ordinary openai clients work against it. A reply is complete before its first byte is sent, also when it is streamed,
so that a model that fails is an HTTP status and never a torn stream. Stop strings and `max_tokens` are applied here where
the model did not apply them itself.
"""

import asyncio
import contextlib
import json
import logging
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from webdancer.errors import ConfigError, ContextFullError, ModelError
from webdancer.llm.protocol import ChatModel, ChatReply
from webdancer.serve.wire import ChatRequest

_log = logging.getLogger(__name__)
_PIECE = re.compile(r"\s*\w{1,12}|\s*[^\w\s]|\s+")
"""What counts as a token where the model does not count, and what one streamed chunk holds."""
_KEEPALIVE_S = 75
"""Idle connections stay open for longer than clients keep them, so that none meets one that is closing."""
_GRACE_S = 2
"""How long requests under way may go on when the server is stopped."""


class _Refused(Exception):
    """A request that is answered with an OpenAI-style error body."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


def create_app(models: Mapping[str, ChatModel]) -> FastAPI:
    """The API over `models`, by the names under which clients ask for them."""
    app = FastAPI(title="webdancer", docs_url=None, redoc_url=None, openapi_url=None)
    created = int(time.time())

    def described(name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": created, "owned_by": "webdancer"}

    def known(name: str) -> ChatModel:
        if name not in models:
            names = ", ".join(sorted(models))
            message = f"The model {name!r} does not exist; this server has: {names}."
            raise _Refused(404, message, param="model", code="model_not_found")
        return models[name]

    @app.get("/v1/models")
    async def list_models() -> dict[str, object]:
        return {"object": "list", "data": [described(name) for name in sorted(models)]}

    @app.get("/v1/models/{name:path}")
    async def get_model(name: str) -> dict[str, object]:
        known(name)
        return described(name)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: ChatRequest) -> Response:
        reply = await _answer(known(request.model), request)
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": request.model}
        if request.stream:
            return StreamingResponse(_events(head, reply, request), media_type="text/event-stream")
        return _json(head | {"object": "chat.completion"} | _completion(reply))

    _add_error_handlers(app)
    return app


async def serve(
    app: FastAPI, host: str = "127.0.0.1", port: int = 0, on_ready: Callable[[int], None] = lambda port: None
) -> int:
    """Serve until cancelled; then requests under way get a moment to end. Returns the port.

    Args:
        port: 0 takes a free one.
        on_ready: called with the port as soon as requests are answered.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"cannot serve on {host}, port {port}: {error.strerror or error}; try another port") from None
    bound = int(listener.getsockname()[1])
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_keep_alive=_KEEPALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, on_started=lambda: on_ready(bound))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(running)
    finally:
        server.should_exit = True
        await running
    return bound


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers (Ctrl-C belongs to the program), telling when it is up."""

    def __init__(self, config: uvicorn.Config, *, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()


async def _answer(model: ChatModel, request: ChatRequest) -> ChatReply:
    """The model's reply, cut at stop strings and `max_tokens`."""
    sampling = request.sampling()
    try:
        reply = await model.chat(request.chat_messages(), sampling)
    except ContextFullError as error:
        raise _Refused(400, str(error), param="messages", code="context_length_exceeded") from error
    except ModelError as error:
        raise _Refused(502, str(error), code="model_error") from error
    reply = _cut_at_stop(reply, sampling.stop)
    return reply if sampling.max_tokens is None else _cut_to_length(reply, sampling.max_tokens)


def _cut_at_stop(reply: ChatReply, stop: tuple[str, ...]) -> ChatReply:
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


def _cut_to_length(reply: ChatReply, max_tokens: int) -> ChatReply:
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


def _completion(reply: ChatReply) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": reply.content, "refusal": None}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
    return {"choices": [choice], "usage": _usage(reply)}


def _usage(reply: ChatReply) -> dict[str, int]:
    prompt, completion = reply.usage.prompt_tokens, reply.usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _events(head: dict[str, object], reply: ChatReply, request: ChatRequest) -> AsyncIterator[bytes]:
    """The reply as server-sent events: role, reasoning, content, finish, usage where asked for, `[DONE]`."""
    with_usage = request.stream_options is not None and request.stream_options.include_usage

    def event(choices: list[object], usage: dict[str, int] | None = None) -> bytes:
        chunk = head | {"object": "chat.completion.chunk", "choices": choices}
        return b"data: " + _dumps(chunk | {"usage": usage} if with_usage else chunk) + b"\n\n"

    def delta(value: dict[str, object], finish: str | None = None) -> bytes:
        return event([{"index": 0, "delta": value, "logprobs": None, "finish_reason": finish}])

    yield delta({"role": "assistant", "content": ""})
    for piece in _PIECE.findall(reply.reasoning or ""):
        yield delta({"reasoning_content": piece})
    for piece in _PIECE.findall(reply.content):
        yield delta({"content": piece})
    yield delta({}, reply.finish)
    if with_usage:
        yield event([], _usage(reply))
    yield b"data: [DONE]\n\n"


def _add_error_handlers(app: FastAPI) -> None:
    """Every error leaves as `{"error": {"message", "type", "param", "code"}}`."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, _Refused)
        return _error(error.status, str(error), param=error.param, code=error.code)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problem = error.errors()[0]
        param = ".".join(str(part) for part in problem["loc"][1:]) if problem["type"] != "json_invalid" else ""
        message = str(problem["msg"]).removeprefix("Value error, ")
        return _error(400, f"{param}: {message}" if param else f"request body: {message}", param=param or None)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, f"{error.detail} (this server has /v1/chat/completions and /v1/models)")

    async def crashed(request: Request, error: Exception) -> Response:
        return _error(500, f"the server failed: {type(error).__name__}")

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        _Refused: refused,
        RequestValidationError: invalid,
        HTTPException: http,
        Exception: crashed,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> Response:
    kind = "invalid_request_error" if status < 500 else "api_error"
    return _json({"error": {"message": message, "type": kind, "param": param, "code": code}}, status=status)


def _json(value: object, *, status: int = 200) -> Response:
    return Response(_dumps(value), status_code=status, media_type="application/json")


def _dumps(value: object) -> bytes:
    """UTF-8 JSON; half surrogate pairs, which models can write, become `?`."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
