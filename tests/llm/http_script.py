"""A real HTTP server on loopback that gives scripted answers, byte by byte as a broken endpoint would."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = bytes | Callable[[asyncio.StreamWriter], Any]


@dataclass
class Endpoint:
    """What the server was sent. `url` is the API's root."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def http(status: int, body: bytes | str | object, *, content_type: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP response; `body` that is no text is sent as JSON."""
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def completion(content: str | None = "Velm", *, finish: str | None = "stop", **message: object) -> dict[str, Any]:
    """A chat completion as endpoints send it."""
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
    }


def delta(finish: str | None = None, **fields: object) -> dict[str, Any]:
    """A chunk of a stream; `fields` are what it adds to the message."""
    choice = {"index": 0, "delta": fields, "finish_reason": finish, "logprobs": None}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": None,
    }


def usage_chunk(**counts: object) -> dict[str, Any]:
    """The last chunk of a stream that was asked for its usage."""
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": counts}


def events(*chunks: object, done: bool = True, end: str = "\n") -> str:
    """Server-sent events; a string is sent as it is, in a line of its own."""
    lines = [chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk)}{end}" for chunk in chunks]
    return "".join(f"{line}{end}" for line in [*lines, *([f"data: [DONE]{end}"] if done else [])])


def stream(*chunks: object, done: bool = True) -> bytes:
    """A whole response of events."""
    return http(200, events(*chunks, done=done), content_type="text/event-stream")


def error(
    status: int, message: str, *, code: str | int | None = None, param: str | None = None, **headers: str
) -> bytes:
    """An OpenAI-style error response."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return http(status, body, **headers)


@asynccontextmanager
async def endpoint(answers: Sequence[Answer]) -> AsyncIterator[Endpoint]:
    """Serve `answers` in turn, one a request; the last one for all further requests."""
    seen = Endpoint()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                text = head.decode()
                length = int(text.lower().split("content-length:")[1].split("\r\n")[0])
                seen.times.append(asyncio.get_running_loop().time())
                seen.headers.append(text)
                seen.bodies.append(json.loads(await reader.readexactly(length)))
                answer = answers[min(len(seen.bodies), len(answers)) - 1]
                if callable(answer):
                    await answer(writer)
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield seen
    finally:
        server.close()
