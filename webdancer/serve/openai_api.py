"""Serves any chat model behind an OpenAI-compatible HTTP API: chat completions, completions (both stream) and models.

The ordinary openai clients work against it. A model that tells its tokens as they come is streamed so; of any other a reply
is complete before its first byte is sent. What is wrong with a request is an HTTP status in either case, and never a torn
stream. Stop strings and `max_tokens` are applied here where the model did not apply them itself.
"""

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar, runtime_checkable

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from webdancer.errors import BadRequestError, BudgetError, ConfigError, ContextFullError, WebdancerError
from webdancer.keys import redact
from webdancer.llm.protocol import ChatModel, ChatReply, CompletionModel, Message, ReplyParts, Sampling, StreamingModel
from webdancer.serve.replies import (
    chat_completion,
    chat_events,
    cut_at_stop,
    cut_to_length,
    dumps,
    error_body,
    parts_of,
    text_completion,
    text_events,
)
from webdancer.serve.wire import ChatRequest, CompletionRequest

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_KEEPALIVE_S = 75
"""Idle connections stay open for longer than clients keep them, so that none meets one that is closing."""
_GRACE_S = 2
"""How long requests under way may go on when the server is stopped."""


@runtime_checkable
class StreamingChat(Protocol):
    """A chat model that tells its reply while it is under way, and keeps to the request's limits by itself."""

    def stream_chat(self, messages: Sequence[Message], sampling: Sampling) -> ReplyParts:
        """The answer to `messages`; raises what `chat` raises, what is wrong with the request before the first piece."""
        ...


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
    async def chat_completions(request: ChatRequest, http: Request) -> Response:
        sampling, messages = request.sampling(), request.chat_messages()
        model = known(request.model)
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": request.model}
        if request.stream and isinstance(model, StreamingChat):
            parts = await _unless_left(http, _begun(model.stream_chat(messages, sampling), param="messages"))
            return _stream(chat_events(head, parts, request))
        limits = None if isinstance(model, StreamingChat) else sampling
        reply = await _unless_left(http, _answer(model.chat(messages, sampling), limits, param="messages"))
        if request.stream:
            return _stream(chat_events(head, parts_of(reply), request))
        return _json(head | chat_completion(reply, request))

    @app.post("/v1/completions")
    async def completions(request: CompletionRequest, http: Request) -> Response:
        sampling = request.sampling()
        model = known(request.model)
        if not isinstance(model, CompletionModel):
            raise _Refused(400, f"The model {request.model!r} only chats; use /v1/chat/completions.", param="model")
        head = {"id": f"cmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": request.model}
        if request.stream and isinstance(model, StreamingModel):
            parts = await _unless_left(http, _begun(model.stream_complete(request.prompt, sampling), param="prompt"))
            return _stream(text_events(head, parts, request))
        limits = None if isinstance(model, StreamingModel) else sampling
        reply = await _unless_left(http, _answer(model.complete(request.prompt, sampling), limits, param="prompt"))
        if request.stream:
            return _stream(text_events(head, parts_of(reply), request))
        return _json(head | text_completion(reply, request))

    _add_error_handlers(app)
    return app


async def serve(
    app: ASGIApp, host: str = "127.0.0.1", port: int = 0, on_ready: Callable[[int], None] = lambda port: None
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


async def _unless_left(http: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """What the work comes to; a client that leaves first ends it, as a timeout before a retry does."""

    async def left() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(left())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _Refused(499, "the client left")  # nobody reads it
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _answer(replying: Awaitable[ChatReply], limits: Sampling | None, *, param: str) -> ChatReply:
    """The model's reply, cut at the stop strings and `max_tokens` of `limits`; `param` names the field of the model's input."""
    with _refusing(param):
        reply = await replying
    if limits is None:
        return reply
    reply = cut_at_stop(reply, limits.stop)
    return reply if limits.max_tokens is None else cut_to_length(reply, limits.max_tokens)


async def _begun(parts: ReplyParts, *, param: str) -> ReplyParts:
    """The parts of a reply of which the first is there, so that what is wrong with the request has been told."""
    with _refusing(param):
        first = await anext(parts)

    async def all_parts() -> ReplyParts:
        async with aclosing(parts):
            yield first
            async for part in parts:
                yield part

    return all_parts()


@contextlib.contextmanager
def _refusing(param: str) -> Iterator[None]:
    """Turn a model's errors into answers to the client."""
    try:
        yield
    except ContextFullError as error:
        raise _Refused(400, str(error), param=param, code="context_length_exceeded") from error
    except BadRequestError as error:
        raise _Refused(400, str(error), param=param) from error
    except BudgetError as error:
        raise _Refused(429, str(error), code="insufficient_quota") from error
    except WebdancerError as error:
        raise _Refused(502, redact(str(error)), code="model_error") from error


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
        return _error(
            error.status_code, f"{error.detail} (this server has /v1/chat/completions, /v1/completions and /v1/models)"
        )

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
    return _json(error_body(message, kind=kind, param=param, code=code), status=status)


def _stream(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream")


def _json(value: object, *, status: int = 200) -> Response:
    return Response(dumps(value), status_code=status, media_type="application/json")
