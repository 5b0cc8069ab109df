"""Serves the stand-in over HTTP as a provider would: with latency, rate limits, outages, and a count of what it answered.

`GET /counts` tells, since the start, for each role (`ROLE_reask` where a reply was sent back, `agent_forced` where an
answer was demanded) how many calls were answered whole, with their tokens, and how many were spoilt by each failure.
Which calls fail follows from the seed, the request's body and how often it came: the same run meets the same failures.
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webdancer.llm.protocol import Message as ChatMessage
from webdancer.serve.openai_api import create_app, serve

from .agent import Slips
from .model import StandIn
from .prompt import call_label, rng_of

_CHAT = "/v1/chat/completions"
_RETRY_AFTER_S = "0.2"
_MOMENT_S = 0.01
_HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><p>Please sign in.</p></body></html>"


@dataclass(frozen=True, slots=True)
class Troubles:
    """How the server behaves: seconds of waiting, and shares of calls that fail in each way."""

    latency_s: float = 0.0
    """Mean of the time before an answer; single ones vary by half of it."""
    slow_s: float = 1.0
    """Further time of a slow answer."""
    rate_429: float = 0.0
    """Refused with `Retry-After`."""
    rate_5xx: float = 0.0
    """500, 502 or 503."""
    rate_truncated: float = 0.0
    """The body ends in its middle, and with it the connection."""
    rate_dropped: float = 0.0
    """The connection ends without an answer."""
    rate_html: float = 0.0
    """Status 200 with an HTML page, as a captive portal answers."""
    rate_slow: float = 0.0
    seed: int = 0

    def draw(self, rng: random.Random) -> str:
        """The failure of one call, `slow`, or an empty string for none."""
        point = rng.random()
        for name in (field.name for field in fields(self) if field.name.startswith("rate_")):
            point -= getattr(self, name)
            if point < 0:
                return name.removeprefix("rate_")
        return ""


class Counts:
    """What the server did."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.tokens: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.spoilt: Counter[str] = Counter()
        self.max_at_once = 0
        self.at_once = 0

    def as_json(self) -> dict[str, object]:
        """The body of `/counts`."""
        return {
            "calls": dict(sorted(self.answered.items())),
            "tokens": {role: dict(tokens) for role, tokens in sorted(self.tokens.items())},
            "failures": dict(sorted(self.spoilt.items())),
            "max_at_once": self.max_at_once,
        }


class TroubleMiddleware:
    """Waits, fails and counts around the calls of an app.

    A call is counted as answered once its last byte was handed over, so that what a client had to ask twice counts once.
    """

    def __init__(self, app: ASGIApp, *, troubles: Troubles, counts: Counts) -> None:
        self._app, self._troubles, self._counts = app, troubles, counts
        self._num_seen: Counter[bytes] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _CHAT:
            await self._app(scope, receive, send)
            return
        self._counts.at_once += 1
        self._counts.max_at_once = max(self._counts.max_at_once, self._counts.at_once)
        try:
            await self._call(scope, receive, send)
        finally:
            self._counts.at_once -= 1

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        self._num_seen[body] += 1
        rng = rng_of("trouble", self._troubles.seed, body, self._num_seen[body])
        trouble = self._troubles.draw(rng)
        slow_s = self._troubles.slow_s if trouble == "slow" else 0.0
        await asyncio.sleep(self._troubles.latency_s * rng.uniform(0.5, 1.5) + slow_s)
        if trouble and trouble != "slow":
            self._counts.spoilt[trouble] += 1
        if trouble == "429":
            await _answer(send, 429, _error("Rate limit reached for requests", "rate_limit_exceeded"), _RETRY_AFTER_S)
        elif trouble == "5xx":
            await _answer(send, rng.choice((500, 502, 503)), _error("The server had an error", "server_error"))
        elif trouble == "html":
            await _answer(send, 200, _HTML, content_type=b"text/html")
        elif trouble == "dropped":
            await _drop(receive)
        else:
            answer = await _collected(self._app, scope, body, receive)
            await self._deliver(body, answer, receive, send, is_truncated=trouble == "truncated")

    async def _deliver(
        self, body: bytes, answer: list[Message], receive: Receive, send: Send, *, is_truncated: bool
    ) -> None:
        """Hand over an app's whole answer, or the first half of its body."""
        start, content = answer[0], b"".join(part.get("body", b"") for part in answer[1:])
        await send(start)
        if is_truncated:
            await send({"type": "http.response.body", "body": content[: len(content) // 2], "more_body": True})
            await asyncio.sleep(_MOMENT_S)  # what is in the buffer goes out before the connection ends
            await _drop(receive)
            return
        await send({"type": "http.response.body", "body": content})
        if start["status"] == 200:
            label = _label(body)
            self._counts.answered[label] += 1
            self._counts.tokens[label].update(_usage(content))


async def _read(receive: Receive) -> bytes:
    """The whole body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _collected(app: ASGIApp, scope: Scope, body: bytes, receive: Receive) -> list[Message]:
    """All that the app sends in answer to a request whose body has been read."""
    given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def again() -> Message:
        return given.pop() if given else await receive()

    async def keep(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, again, keep)
    return sent


async def _drop(receive: Receive) -> None:
    """End a request's connection. ASGI has no way to do it; uvicorn's `receive` is a method of what holds the connection."""
    receive.__self__.transport.abort()  # type: ignore[attr-defined]
    await asyncio.sleep(
        _MOMENT_S
    )  # until uvicorn has heard of it: else it takes the missing answer for a fault of ours


async def _answer(
    send: Send, status: int, body: bytes, retry_after: str = "", *, content_type: bytes = b"application/json"
) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    if retry_after:
        headers.append((b"retry-after", retry_after.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _error(message: str, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}}).encode()


def _label(body: bytes) -> str:
    messages = json.loads(body)["messages"]
    return call_label([ChatMessage(m["role"], m.get("content") or "") for m in messages])


def _usage(content: bytes) -> dict[str, int]:
    """The prompt and completion tokens that an answer tells: its own, or those of a stream's last event."""
    if not content.startswith(b"{"):
        events = [line.removeprefix(b"data: ") for line in content.split(b"\n") if line.startswith(b"data: {")]
        content = events[-1] if events else b"{}"
    usage = json.loads(content).get("usage")
    return {"prompt": usage["prompt_tokens"], "completion": usage["completion_tokens"]} if usage else {}


def make_app(troubles: Troubles | None = None, slips: Slips | None = None) -> FastAPI:
    """The API over the stand-in, as `standin` and, thinking apart, as `standin-reasoner`."""
    models = [StandIn(slips=slips), StandIn(is_reasoner=True, slips=slips)]
    counts = Counts()
    app = create_app({model.name: model for model in models})
    app.add_api_route("/counts", counts.as_json)
    app.add_middleware(TroubleMiddleware, troubles=troubles or Troubles(), counts=counts)
    return app


@asynccontextmanager
async def running(troubles: Troubles | None = None, slips: Slips | None = None) -> AsyncIterator[str]:
    """The address `http://127.0.0.1:PORT` of a server that ends with the block."""
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(make_app(troubles, slips), "127.0.0.1", 0, ready.set_result))
    try:
        yield f"http://127.0.0.1:{await ready}"
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
