"""The API over real loopback HTTP: with the ordinary openai clients, with plain HTTP, and with our own client."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
import stamina
from fixtures import ScriptedModel
from hypothesis import given
from hypothesis import strategies as st

from webdancer.config import EndpointSettings
from webdancer.errors import ConfigError, ContextFullError, ModelError
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import ChatModel, ChatReply, Message, Sampling
from webdancer.records import Usage
from webdancer.serve import replies
from webdancer.serve.openai_api import create_app, serve


class Parrot:
    """Repeats the last message, thinks about it where it has a thought, and keeps what it was asked."""

    def __init__(self, *, thought: str | None = None) -> None:
        self.name, self._thought = "parrot", thought
        self.calls: list[tuple[list[Message], Sampling]] = []

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        self.calls.append((list(messages), sampling))
        content = messages[-1].content
        usage = Usage(prompt_tokens=sum(len(m.content.split()) for m in messages), llm_calls=1)
        usage = usage.model_copy(update={"completion_tokens": len(content.split())})
        return ChatReply(content, reasoning=self._thought, usage=usage)


@asynccontextmanager
async def served(models: Mapping[str, ChatModel]) -> AsyncIterator[str]:
    """The API's root, `http://127.0.0.1:PORT/v1`, while the app runs in the background."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(create_app(models), "127.0.0.1", 0, port.set_result))
    try:
        yield f"http://127.0.0.1:{await port}/v1"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def sdk(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=10)


async def post(url: str, body: object) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/chat/completions", data=data, headers=headers) as r,
    ):
        return r.status, await r.json()


USER = {"role": "user", "content": "Where is Velm?"}


async def test_openai_client_gets_a_completion() -> None:
    async with served({"parrot": Parrot()}) as url, sdk(url) as client:
        reply = await client.chat.completions.create(model="parrot", messages=[USER])
    assert reply.object == "chat.completion"
    assert reply.model == "parrot"
    assert reply.choices[0].message.content == "Where is Velm?"
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.model_dump(exclude_none=True) == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


async def test_synchronous_openai_client_works_too() -> None:
    def ask(url: str) -> tuple[str | None, str]:
        with openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=10) as client:
            whole = client.chat.completions.create(model="parrot", messages=[USER])
            chunks = client.chat.completions.create(model="parrot", messages=[USER], stream=True)
            return whole.choices[0].message.content, "".join(c.choices[0].delta.content or "" for c in chunks)

    async with served({"parrot": Parrot()}) as url:
        assert await asyncio.to_thread(ask, url) == ("Where is Velm?", "Where is Velm?")


async def test_stream_has_role_reasoning_content_finish_and_usage_in_this_order() -> None:
    async with served({"parrot": Parrot(thought="A city. 一座城市。")}) as url, sdk(url) as client:
        stream = await client.chat.completions.create(
            model="parrot", messages=[USER], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert deltas[0].role == "assistant"
    thoughts = [delta.model_extra.get("reasoning_content") for delta in deltas if delta.model_extra]
    assert "".join(thoughts) == "A city. 一座城市。"
    assert "".join(delta.content or "" for delta in deltas) == "Where is Velm?"
    kinds = ["thought" if delta.model_extra else "content" for delta in deltas[1:-1]]
    assert kinds == sorted(kinds, reverse=True)  # all thoughts before all content
    assert kinds.count("content") == 4
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(deltas) - 1) + ["stop"]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * len(deltas)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 6


async def test_stream_on_the_wire() -> None:
    body = {"model": "parrot", "messages": [{"role": "user", "content": "Velm 桥"}], "stream": True}
    async with (
        served({"parrot": Parrot()}) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/chat/completions", json=body) as response,
    ):
        assert response.content_type == "text/event-stream"
        events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "Velm"},
        {"content": " 桥"},
        {},
    ]
    assert all("usage" not in chunk for chunk in chunks)


async def test_reasoning_is_a_field_of_the_message() -> None:
    async with served({"a": Parrot(thought="Hm."), "b": Parrot()}) as url:
        _, with_thought = await post(url, {"model": "a", "messages": [USER]})
        _, without = await post(url, {"model": "b", "messages": [USER]})
    assert with_thought["choices"][0]["message"]["reasoning_content"] == "Hm."
    assert "reasoning_content" not in without["choices"][0]["message"]


async def test_models_are_listed() -> None:
    async with served({"parrot": Parrot(), "org/ara": Parrot()}) as url, sdk(url) as client:
        assert [model.id async for model in await client.models.list()] == ["org/ara", "parrot"]
        assert (await client.models.retrieve("parrot")).owned_by == "webdancer"
        with pytest.raises(openai.NotFoundError, match="'crow' does not exist; this server has: org/ara, parrot"):
            await client.models.retrieve("crow")


async def test_roles_parts_and_settings_reach_the_model() -> None:
    parrot = Parrot()
    body = {
        "model": "parrot",
        "messages": [
            {"role": "system", "content": "a"},
            {"role": "developer", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
            {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": []},
            {"role": "user", "content": "d", "name": "x"},
        ],
        "temperature": 0,
        "top_p": 0.5,
        "seed": -3,
        "stop": "END",
        "max_tokens": 5,
        "max_completion_tokens": 9,
        "n": 1,
        "logit_bias": {"1": 2},
        "unheard_of": [1],
    }
    async with served({"parrot": parrot}) as url:
        status, _ = await post(url, body)
        await post(url, {"model": "parrot", "messages": [USER], "stop": ["x", "y"], "max_tokens": 5})
        await post(url, {"model": "parrot", "messages": [USER], "stop": None, "temperature": None, "stream": None})
    assert status == 200
    assert parrot.calls[0] == (
        [
            Message("system", "a"),
            Message("system", "bc"),
            Message("assistant", "", reasoning="r"),
            Message("user", "d"),
        ],
        Sampling(temperature=0.0, top_p=0.5, seed=-3, stop=("END",), max_tokens=9),
    )
    assert parrot.calls[1][1] == Sampling(stop=("x", "y"), max_tokens=5)
    assert parrot.calls[2][1] == Sampling()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [USER, {"content": "x"}]}, "messages.1.role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
        ({"model": 3}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stop": 3}, "stop"),
        ({"stop": ["a", 3]}, "stop.1"),
        ({"stop": ""}, "stop.0"),
        ({"n": 2}, "n"),
        ({"stream": "maybe"}, "stream"),
        ({"stream_options": {"include_usage": "maybe"}}, "stream_options.include_usage"),
    ],
)
async def test_bad_request_names_its_field(change: dict[str, object], param: str) -> None:
    async with served({"parrot": Parrot()}) as url:
        status, body = await post(url, {"model": "parrot", "messages": [USER], **change})
    assert status == 400
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["param"] == param
    assert body["error"]["message"].startswith(f"{param}: ")


async def test_missing_field_is_named() -> None:
    async with served({"parrot": Parrot()}) as url:
        assert (await post(url, {"messages": [USER]}))[1]["error"]["message"] == "model: Field required"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"nonsense", b'"x"', b"\xff\xfe", b"[" * 100_000])
async def test_body_that_is_no_request(body: bytes) -> None:
    async with served({"parrot": Parrot()}) as url:
        status, answer = await post(url, body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"


async def test_unknown_model_and_unknown_path() -> None:
    async with served({"parrot": Parrot()}) as url, sdk(url) as client:
        with pytest.raises(openai.NotFoundError, match="'crow' does not exist; this server has: parrot") as caught:
            await client.chat.completions.create(model="crow", messages=[USER])
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"
        with pytest.raises(openai.NotFoundError, match="this server has /v1/chat/completions"):
            await client.embeddings.create(model="parrot", input="x")


async def test_failures_of_the_model_are_statuses_also_when_streaming() -> None:
    replies = [ModelError("the GPU is on fire"), ModelError("again"), ContextFullError("40000 tokens are too many")]
    async with served({"m": ScriptedModel(replies)}) as url, sdk(url) as client:
        with pytest.raises(openai.InternalServerError, match="the GPU is on fire") as caught:
            await client.chat.completions.create(model="m", messages=[USER])
        assert caught.value.status_code == 502
        with pytest.raises(openai.InternalServerError, match="again"):
            await client.chat.completions.create(model="m", messages=[USER], stream=True)
        with pytest.raises(openai.BadRequestError, match="40000 tokens are too many") as full:
            await client.chat.completions.create(model="m", messages=[USER])
        assert full.value.code == "context_length_exceeded"


async def test_a_bug_in_a_model_is_a_500_and_the_server_lives_on() -> None:
    async with served({"m": ScriptedModel([ZeroDivisionError("secret detail"), "fine"])}) as url:
        status, body = await post(url, {"model": "m", "messages": [USER]})
        assert (status, body["error"]["type"]) == (500, "api_error")
        assert "secret detail" not in body["error"]["message"]
        assert (await post(url, {"model": "m", "messages": [USER]}))[0] == 200


async def test_half_surrogates_do_not_stop_an_answer() -> None:
    body = b'{"model": "parrot", "messages": [{"role": "user", "content": "a \\ud83d b"}]}'
    parrot = Parrot(thought="half \udc00")
    async with served({"parrot": parrot}) as url:
        status, reply = await post(url, body)
    assert status == 200
    assert parrot.calls[0][0][0].content == "a ? b"
    assert reply["choices"][0]["message"]["reasoning_content"] == "half ?"


@pytest.mark.parametrize(
    ("request_fields", "content", "finish", "num_tokens"),
    [
        ({"stop": "three"}, "one two ", "stop", 3),  # the space counts
        ({"stop": ["five", "two"]}, "one ", "stop", 2),
        ({"stop": "six"}, "one two three four five", "stop", 5),
        ({"stop": "one"}, "", "stop", 0),
        ({"max_tokens": 5}, "one two three four five", "stop", 5),
        ({"max_tokens": 2}, "one two", "length", 2),
        ({"max_completion_tokens": 1, "max_tokens": 3}, "one", "length", 1),
        ({"stop": "two", "max_tokens": 3}, "one ", "stop", 2),
        ({"stop": "five", "max_tokens": 3}, "one two three", "length", 3),
    ],
)
async def test_stop_and_max_tokens_hold_for_a_model_that_ignores_them(
    request_fields: dict[str, object], content: str, finish: str, num_tokens: int
) -> None:
    messages = [{"role": "user", "content": "one two three four five"}]
    async with served({"parrot": Parrot()}) as url:
        _, reply = await post(url, {"model": "parrot", "messages": messages, **request_fields})
    choice = reply["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, finish)
    assert reply["usage"]["completion_tokens"] == num_tokens


async def test_max_tokens_counts_reasoning_first() -> None:
    reply = ChatReply("x y", reasoning="a b c")  # no usage: words and marks are counted
    async with served({"m": ScriptedModel([reply] * 3)}) as url:
        cut = [
            (await post(url, {"model": "m", "messages": [USER], "max_tokens": n}))[1]["choices"][0] for n in (2, 4, 5)
        ]
    assert [(c["message"].get("reasoning_content"), c["message"]["content"], c["finish_reason"]) for c in cut] == [
        ("a b", "", "length"),
        ("a b c", "x", "length"),
        ("a b c", "x y", "stop"),
    ]


async def test_a_reply_that_the_model_cut_itself_keeps_its_finish() -> None:
    reply = ChatReply("one two", finish="length", usage=Usage(completion_tokens=2, llm_calls=1))
    async with served({"m": ScriptedModel([reply])}) as url:
        _, body = await post(url, {"model": "m", "messages": [USER], "max_tokens": 2})
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == "one two"


@given(st.text())
def test_pieces_of_a_stream_make_up_the_text(text: str) -> None:
    assert "".join(replies._PIECE.findall(text)) == text


async def test_many_calls_at_once() -> None:
    async with served({"m": ScriptedModel([f"reply {n}" for n in range(64)], delay_s=0.2)}) as url, sdk(url) as client:
        started = asyncio.get_running_loop().time()
        calls = [client.chat.completions.create(model="m", messages=[USER]) for _ in range(64)]
        replies = await asyncio.gather(*calls)
        seconds = asyncio.get_running_loop().time() - started
    assert {reply.choices[0].message.content for reply in replies} == {f"reply {n}" for n in range(64)}
    assert seconds < 64 * 0.2 / 2  # not one after the other


async def test_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot serve on 127.0.0.1, port {port}: Address already in use"):
            await serve(create_app({}), "127.0.0.1", port, lambda port: None)


async def test_cancelled_server_lets_a_call_end_and_frees_its_port() -> None:
    model = ScriptedModel(["late"], delay_s=0.4)
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(create_app({"m": model}), "127.0.0.1", 0, ready.set_result))
    port = await ready
    call = asyncio.create_task(post(f"http://127.0.0.1:{port}/v1", {"model": "m", "messages": [USER]}))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await call)[1]["choices"][0]["message"]["content"] == "late"
    with pytest.raises(OSError, match=r"111|refused"):
        await asyncio.open_connection("127.0.0.1", port)


# Round trips: our client against our server.


async def test_round_trip_keeps_everything() -> None:
    parrot = Parrot(thought="Hm.")
    sampling = Sampling(temperature=0.6, top_p=0.95, max_tokens=50, stop=("END",), seed=11)
    messages = [Message("system", "Be brief."), Message("user", "Velm 桥 END and more")]
    async with (
        served({"parrot": parrot}) as url,
        OpenAIChatModel(EndpointSettings(base_url=url, model="parrot")) as model,
    ):
        reply = await model.chat(messages, sampling)
    usage = Usage(prompt_tokens=7, completion_tokens=3, llm_calls=1)
    assert reply == ChatReply("Velm 桥 ", reasoning="Hm.", usage=usage)
    assert parrot.calls == [(messages, sampling)]


async def test_round_trip_of_a_cut_reply() -> None:
    async with (
        served({"parrot": Parrot()}) as url,
        OpenAIChatModel(EndpointSettings(base_url=url, model="parrot", max_tokens=2)) as model,
    ):
        reply = await model.chat([Message("user", "one two three")], Sampling())
    assert (reply.content, reply.finish) == ("one two", "length")


async def test_round_trip_of_errors() -> None:
    replies = [ModelError("busy"), ModelError("busy"), "there", ContextFullError("too long")]
    async with (
        served({"m": ScriptedModel(replies)}) as url,
        OpenAIChatModel(EndpointSettings(base_url=url, model="m")) as model,
        OpenAIChatModel(EndpointSettings(base_url=url, model="crow")) as crow,
    ):
        with stamina.set_testing(True, attempts=100, cap=True):
            assert (await model.chat([Message("user", "Hello")], Sampling())).content == "there"
        with pytest.raises(ContextFullError, match="too long"):
            await model.chat([Message("user", "Hello")], Sampling())
        with pytest.raises(ModelError, match="model 'crow': status 404: The model 'crow' does not exist"):
            await crow.chat([Message("user", "Hello")], Sampling())
