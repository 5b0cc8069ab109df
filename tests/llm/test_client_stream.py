"""Answers that come as a stream: put together, and found out where they end too early."""

import asyncio

import pytest
from asking import OK, ask, failure, opened
from fixtures import ScriptedModel
from http_script import completion, delta, endpoint, error, events, http, stream, usage_chunk

from webdancer.errors import ContextFullError
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.llm.transport import EventReader
from webdancer.records import Usage
from webdancer.serve.openai_api import create_app, serve

USAGE = usage_chunk(prompt_tokens=12, completion_tokens=3, total_tokens=15)
TOLD = Usage(prompt_tokens=12, completion_tokens=3, llm_calls=1)
VELM = stream(delta(role="assistant", content=""), delta(content="Ve"), delta(content="lm"), delta("stop"), USAGE)


async def test_content_and_usage_are_put_together() -> None:
    async with endpoint([VELM]) as server:
        assert await ask(server.url, stream=True) == ChatReply("Velm", usage=TOLD)
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


async def test_without_the_setting_nothing_is_streamed() -> None:
    async with endpoint([OK]) as server:
        await ask(server.url)
    assert "stream" not in server.bodies[0]
    assert "stream_options" not in server.bodies[0]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_is_put_together(name: str) -> None:
    chunks = [delta(**{name: "It lies "}), delta(**{name: "on the Orn."}), delta(content="Velm"), delta("stop")]
    async with endpoint([stream(*chunks, USAGE)]) as server:
        reply = await ask(server.url, stream=True)
    assert (reply.reasoning, reply.content) == ("It lies on the Orn.", "Velm")


async def test_openrouter_sends_comments_and_reasoning_details() -> None:
    details = [
        delta(content="", reasoning_details=[{"type": "reasoning.text", "text": part}]) for part in ("So", " it is.")
    ]
    last = delta("stop", content="Velm") | {"usage": {"prompt_tokens": 12, "completion_tokens": 3}}
    async with endpoint([stream(": OPENROUTER PROCESSING\n", *details, ": OPENROUTER PROCESSING\n", last)]) as server:
        assert await ask(server.url, stream=True) == ChatReply("Velm", reasoning="So it is.", usage=TOLD)


def piece(
    index: int | None, arguments: str, *, call_id: str | None = None, name: str | None = None
) -> dict[str, object]:
    call: dict[str, object] = {"function": {"name": name, "arguments": arguments}, "type": "function"}
    return call | ({} if index is None else {"index": index}) | ({} if call_id is None else {"id": call_id})


CALL = '<tool_call>\n{"name": "search", "arguments": {"query": ["Orn"]}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "visit", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        (  # OpenAI, vLLM: the name first, then the arguments bit by bit
            [piece(0, "", call_id="a", name="search"), piece(0, '{"query": '), piece(0, '["Orn"]}')],
            CALL,
        ),
        ([piece(None, '{"query": ["Orn"]}', call_id="a", name="search")], CALL),  # whole, without an index
        (  # two, told apart by their index
            [piece(0, '{"query": ["Orn"]}', call_id="a", name="search"), piece(1, "{}", call_id="b", name="visit")],
            f"{CALL}\n{OTHER}",
        ),
        (  # Ollama has numbered every call 0
            [piece(0, '{"query": ["Orn"]}', call_id="a", name="search"), piece(0, "{}", call_id="b", name="visit")],
            f"{CALL}\n{OTHER}",
        ),
        (  # DashScope repeats an empty id and name
            [piece(0, '{"query": ', call_id="a", name="search"), piece(0, '["Orn"]}', call_id="", name="")],
            CALL,
        ),
    ],
)
async def test_tool_calls_are_put_together(pieces: list[dict[str, object]], content: str) -> None:
    chunks = [delta(content=None, tool_calls=[part]) for part in pieces]
    async with endpoint([stream(*chunks, delta("tool_calls"), USAGE)]) as server:
        assert (await ask(server.url, stream=True)).content == content


async def test_bytes_may_be_split_anywhere() -> None:
    text = events(": hm\n", delta(content="Größe "), delta(content="北京"), end="\r\n").encode()
    whole = list(EventReader().feed(text))
    reader = EventReader()
    assert [data for i in range(len(text)) for data in reader.feed(text[i : i + 1])] == whole
    assert len(whole) == 3
    assert whole[-1] == "[DONE]"


async def test_data_over_several_lines_without_a_space_and_other_fields() -> None:
    text = b'event: message\nid: 7\ndata:{"a":\ndata:1}\n\n\n\ndata: [DONE]\n\n'
    assert list(EventReader().feed(text)) == ['{"a":\n1}', "[DONE]"]


@pytest.mark.parametrize(
    "cut",
    [
        stream(delta(content="Ve")),  # no finish_reason
        stream(delta(content="Velm"), delta("stop"), done=False),  # no [DONE]
        stream(delta(content="Ve"), done=False),
        stream(delta(content="Ve"), delta("")),
        stream(delta(content="Ve"), 'data: {"choices": [{"del\n', done=False),
        stream(done=False),
        stream(),
    ],
)
@pytest.mark.usefixtures("no_backoff")
async def test_a_stream_that_ends_too_early_is_asked_for_again(cut: bytes) -> None:
    async with endpoint([cut, VELM]) as server:
        assert (await ask(server.url, stream=True)).content == "Velm"
    async with endpoint([cut]) as server:
        message = await failure(server.url, stream=True, max_attempts=2)
    assert "the answer is not complete (2 attempts): " in message
    assert "set stream = false" in message
    assert len(server.bodies) == 2


@pytest.mark.usefixtures("no_backoff")
async def test_a_connection_that_breaks_in_a_stream() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def cut(writer: asyncio.StreamWriter) -> None:
        data = events(delta(content="Ve"), done=False).encode()
        writer.write(head + f"{len(data):x}\r\n".encode() + data + b"\r\n40\r\ndata: {")
        await writer.drain()

    async with endpoint([cut, VELM]) as server:
        assert (await ask(server.url, stream=True)).content == "Velm"
    assert len(server.bodies) == 2


@pytest.mark.usefixtures("no_backoff")
async def test_a_stream_that_drips_times_out() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for _ in range(100):
            writer.write(b": keep-alive\n\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with endpoint([drip]) as server:
        assert "no answer within timeout_s = 0.4 s" in await failure(
            server.url, stream=True, timeout_s=0.4, max_attempts=1
        )


@pytest.mark.parametrize(
    "failing",
    [
        {
            "error": {"code": 502, "message": "Provider disconnected"},
            "choices": [{"delta": {}, "finish_reason": "error"}],
        },
        {"error": {"code": "server_error", "message": "Provider disconnected"}},
        {"error": {"message": "Provider disconnected", "type": "InternalServerError", "code": 500}},  # vLLM, SGLang
        'error: {"code": 500, "message": "Provider disconnected", "type": "server_error"}\n',  # llama.cpp, older
    ],
)
@pytest.mark.usefixtures("no_backoff")
async def test_an_error_in_a_stream_is_one_of_the_server(failing: object) -> None:
    broken = stream(delta(content="Ve"), failing)
    async with endpoint([broken, VELM]) as server:
        assert (await ask(server.url, stream=True)).content == "Velm"
    async with endpoint([broken]) as server:
        assert "status 200 with the error 50" in await failure(server.url, stream=True, max_attempts=1)


async def test_a_full_context_in_a_stream() -> None:
    message = "the request exceeds the available context size. try increasing the context size or enable context shift"
    body = {"code": 500, "message": message, "type": "exceed_context_size_error", "n_prompt_tokens": 1407, "n_ctx": 256}
    async with endpoint([stream({"error": body})]) as server:
        with pytest.raises(ContextFullError):
            await ask(server.url, stream=True)


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "Unrecognized request argument supplied: stream_options", param=None),
        http(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs"}]}),
    ],
)
async def test_stream_options_are_left_out_where_they_are_refused(refusal: bytes) -> None:
    bare = stream(delta(content="Velm"), delta("stop"))
    async with endpoint([refusal, bare]) as server:
        reply = await ask(server.url, stream=True)
    assert reply == ChatReply("Velm", usage=Usage(llm_calls=1), usage_told=False)
    assert server.bodies[1]["stream"] is True
    assert "stream_options" not in server.bodies[1]


@pytest.mark.parametrize(
    "message",
    [
        "This model only support stream mode, please enable the stream parameter to access the model.",
        "parameter.enable_thinking must be set to false for non-streaming calls",
        "enable thinking can not be support when `stream=False`.",
    ],
)
async def test_a_model_that_only_streams_is_asked_for_a_stream(message: str, caplog: pytest.LogCaptureFixture) -> None:
    refusal = error(400, message, code="invalid_parameter_error")
    async with endpoint([refusal, VELM]) as server, opened(server) as model:
        for _ in range(2):
            assert (await model.chat([Message("user", "q")], Sampling())).content == "Velm"
    assert [body.get("stream") for body in server.bodies] == [None, True, True]
    assert caplog.text.count("set stream = true") == 1


async def test_a_server_that_does_not_stream_is_read_as_well() -> None:
    async with endpoint([http(200, completion())]) as server:
        assert (await ask(server.url, stream=True)).content == "Velm"


async def test_our_own_server_streams_what_it_answers_whole() -> None:
    answer = ChatReply(
        "one two END three", reasoning="So.", usage=Usage(prompt_tokens=7, completion_tokens=8, llm_calls=1)
    )
    app = create_app({"m": ScriptedModel([answer, answer])})
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(app, "127.0.0.1", 0, ready.set_result))
    try:
        url = f"http://127.0.0.1:{await ready}/v1"
        whole = await ask(url, sampling=Sampling(stop=("END",)))
        streamed = await ask(url, sampling=Sampling(stop=("END",)), stream=True)
    finally:
        server.cancel()
        await asyncio.wait({server})
    assert streamed == whole
    assert (whole.content, whole.reasoning, whole.usage.prompt_tokens) == ("one two ", "So.", 7)


async def test_a_stop_string_of_the_client_ends_the_stream_and_the_connection() -> None:
    """An endpoint that knows no `stop` would write on; what is not read is not paid for, where the server notices."""
    left = asyncio.Event()

    async def write_on(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for text in ("<tool_call>{}</tool_call>\n<tool_", "resp", "onse>\nOrn"):
            writer.write(events(delta(content=text), done=False).encode())
            await writer.drain()
        try:
            while True:
                writer.write(events(delta(content=" is a river."), done=False).encode())
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            left.set()

    async with endpoint([write_on]) as server:
        reply = await ask(server.url, sampling=Sampling(stop=("<tool_response>",)), stream=True)
        await asyncio.wait_for(left.wait(), 5)
    assert (reply.content, reply.cut_at) == ("<tool_call>{}</tool_call>\n", "<tool_response>")
    assert (reply.finish, reply.usage_told) == ("stop", False)
