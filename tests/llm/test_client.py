"""The client against real loopback servers that fail in every way that endpoints fail."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from asking import ASK, OK, ask, failure, opened
from http_script import completion, endpoint, error, http

from webdancer.config import EndpointSettings
from webdancer.errors import ConfigError, ContextFullError, ModelError
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import Usage


async def test_reply_is_mapped() -> None:
    async with endpoint([OK]) as server:
        reply = await ask(server.url)
    assert reply == ChatReply("Velm", usage=Usage(prompt_tokens=12, completion_tokens=3, llm_calls=1))


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_comes_under_either_name(name: str) -> None:
    async with endpoint([http(200, completion(**{name: "It lies on the Orn."}))]) as server:
        assert (await ask(server.url)).reasoning == "It lies on the Orn."


async def test_length_and_missing_content_and_usage() -> None:
    body = completion(None, finish="length", reasoning_content="So")
    body["usage"] = None
    async with endpoint([http(200, body)]) as server:
        reply = await ask(server.url)
    assert reply == ChatReply("", reasoning="So", finish="length", usage=Usage(llm_calls=1), usage_told=False)


async def test_what_is_sent() -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "Where?"),
        Message("assistant", "Velm", reasoning="secret thought"),
        Message("user", "half \ud83d pair"),
    ]
    sampling = Sampling(temperature=0.0, top_p=0.9, max_tokens=7, stop=("\n", "END"), seed=3)
    async with endpoint([OK]) as server:
        await ask(server.url, messages, sampling, temperature=1.5)
        await ask(server.url)
        await ask(server.url, temperature=0.5, max_tokens=100)
    assert server.bodies[0] == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "Velm"},
            {"role": "user", "content": "half ? pair"},
        ],
        "temperature": 0.0,
        "top_p": 0.9,
        "max_tokens": 7,
        "stop": ["\n", "END"],
        "seed": 3,
    }
    assert server.bodies[1] == {"model": "m", "messages": [{"role": "user", "content": "Where?"}]}
    assert server.bodies[2]["temperature"] == 0.5
    assert server.bodies[2]["max_tokens"] == 100


async def test_key_is_taken_from_the_named_variable_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    monkeypatch.setenv("MY_KEY", " k-123\n")
    async with endpoint([OK]) as server:
        await ask(server.url, api_key_env="MY_KEY")
        await ask(server.url)
    assert "authorization: bearer k-123\r\n" in server.headers[0].lower()
    assert "sk-of-another-server" not in server.headers[1]


@pytest.mark.parametrize("value", [None, "", "  ", "k\u00e9y", "a\x07b"])
def test_missing_or_odd_key_names_its_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match="'MY_KEY'"):
        OpenAIChatModel(EndpointSettings(base_url="http://h/v1", model="m", api_key_env="MY_KEY"))


@pytest.mark.parametrize("url", ["scribe", "", "localhost:8000/v1", "ftp://h/v1", "http://", "http://h:port/v1", "/v1"])
def test_base_url_must_be_one(url: str) -> None:
    with pytest.raises(ConfigError, match="expected a URL such as 'https://HOST/v1'") as caught:
        OpenAIChatModel(EndpointSettings(base_url=url))
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
@pytest.mark.usefixtures("no_backoff")
async def test_passing_failures_are_tried_again(status: int) -> None:
    async with endpoint([error(status, "busy"), error(status, "busy"), OK]) as server:
        assert (await ask(server.url)).content == "Velm"
    assert len(server.bodies) == 3


@pytest.mark.usefixtures("no_backoff")
async def test_failures_that_last_end_with_the_attempts() -> None:
    async with endpoint([error(503, "the GPU is\non fire")]) as server:
        message = await failure(server.url, max_attempts=3)
    assert message == (
        f"{server.url}, model 'm': status 503 (3 attempts): the GPU is on fire; "
        "run the same command again later, or raise max_attempts"
    )
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "check the model's settings"),
        (401, "set api_key_env"),
        (403, "set api_key_env"),
        (404, "check base_url"),
        (422, "check the model's settings"),
    ],
)
@pytest.mark.usefixtures("no_backoff")
async def test_refusals_are_not_tried_again(status: int, advice: str) -> None:
    async with endpoint([error(status, "no such thing")]) as server:
        message = await failure(server.url)
    assert f"status {status}: no such thing; " in message
    assert advice in message
    assert len(server.bodies) == 1


@pytest.mark.usefixtures("no_backoff")
async def test_used_up_quota_is_not_tried_again() -> None:
    async with endpoint([error(429, "You exceeded your quota", code="insufficient_quota")]) as server:
        assert "quota is used up" in await failure(server.url)
    assert len(server.bodies) == 1


async def test_retry_after_is_honoured() -> None:
    async with endpoint([error(429, "slow down", Retry_After="1"), OK]) as server:
        await ask(server.url)
    assert 1.0 <= server.times[1] - server.times[0] < 2.5  # the second it asked for, and up to one of jitter


async def test_retry_after_as_a_date_that_is_too_far_away_is_reported() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    async with endpoint([error(429, "daily limit", Retry_After=later), OK]) as server:
        started = time.monotonic()
        assert "status 429: daily limit; set requests_per_minute" in await failure(server.url)
    assert time.monotonic() - started < 2
    assert len(server.bodies) == 1


async def test_backoff_waits_without_a_header() -> None:
    async with endpoint([error(500, "x"), OK]) as server:
        await ask(server.url)
    assert 0.5 <= server.times[1] - server.times[0] < 2.5


@pytest.mark.usefixtures("no_backoff")
async def test_cut_off_bodies_are_tried_again() -> None:
    half = OK[: len(OK) // 2 + 60]

    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(half)
        await writer.drain()

    async def cut_chunked(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b'10\r\n{"choices":[{"me\r\n')
        await writer.drain()

    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with endpoint([cut, cut_chunked, hang_up, OK]) as server:
        assert (await ask(server.url)).content == "Velm"
    assert len(server.bodies) == 4


@pytest.mark.usefixtures("no_backoff")
async def test_connection_that_is_refused() -> None:
    async with endpoint([OK]) as server:
        url = server.url
    message = await failure(url, max_attempts=2)
    assert "connection failed (2 attempts): " in message
    assert "check base_url and that the server is running" in message


@pytest.mark.usefixtures("no_backoff")
async def test_slow_server_times_out_and_is_tried_again() -> None:
    async def sleep(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3)

    async with endpoint([sleep]) as server:
        message = await failure(server.url, timeout_s=0.2, max_attempts=2)
    assert "no answer within timeout_s = 0.2 s (2 attempts); raise timeout_s" in message
    assert len(server.bodies) == 2


@pytest.mark.usefixtures("no_backoff")
async def test_dripping_server_times_out_too() -> None:
    """Bytes that keep arriving must not keep a call alive for ever."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        for byte in OK:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async with endpoint([drip]) as server:
        started = time.monotonic()
        assert "no answer within timeout_s = 0.4 s" in await failure(server.url, timeout_s=0.4, max_attempts=1)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("finish", [None, "", "abort", "error", "insufficient_system_resource"])
@pytest.mark.usefixtures("no_backoff")
async def test_answer_that_does_not_say_that_it_ended_is_asked_for_again(finish: str | None) -> None:
    unfinished = http(200, completion("Vel", finish=finish))
    async with endpoint([unfinished, OK]) as server:
        assert (await ask(server.url)).content == "Velm"
    async with endpoint([unfinished]) as server:
        message = await failure(server.url, max_attempts=3)
    assert f"(3 attempts): got finish_reason {finish or None!r}, expected 'stop', 'length' or 'tool_calls'" in message
    assert "set stream = true, or update the server" in message
    assert len(server.bodies) == 3


async def test_an_answer_that_a_filter_cut_is_final() -> None:
    async with endpoint([http(200, completion(finish="content_filter"))]) as server:
        assert "got finish_reason 'content_filter', expected" in await failure(server.url)
    assert len(server.bodies) == 1


@pytest.mark.usefixtures("no_backoff")
async def test_answer_without_the_field() -> None:
    body = completion()
    del body["choices"][0]["finish_reason"]
    async with endpoint([http(200, body)]) as server:
        assert "got finish_reason None" in await failure(server.url)


@pytest.mark.parametrize(
    "answer",
    [
        http(200, "<html><body>Please log in</body></html>", content_type="text/html"),
        http(200, "<html><body>Please log in</body></html>"),
        http(200, '{"choices": [{"message": {"content": ["Please log in"]}, "finish_reason": "stop"}]}'),
        http(200, '"Please log in"'),
    ],
)
async def test_html_and_other_things_that_are_no_completion(answer: bytes) -> None:
    async with endpoint([answer]) as server:
        message = await failure(server.url)
    assert "status 200, but the answer is no chat completion" in message
    assert "Please log in" in message
    assert "check base_url" in message


async def test_error_page_of_a_proxy() -> None:
    page = "<html>" + "Bad gateway " * 100 + "</html>"
    async with endpoint([http(502, page, content_type="text/html")]) as server:
        message = await failure(server.url, max_attempts=1)
    assert "status 502: <html>Bad gateway" in message
    assert len(message) < 600


async def test_no_choices() -> None:
    async with endpoint([http(200, {"choices": [], "usage": None})]) as server:
        assert "status 200, but the answer holds no choices" in await failure(server.url)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [
        error(400, "This request is too big.", code="context_length_exceeded"),
        error(
            400,
            "This model's maximum context length is 32768 tokens. However, you requested 40000 tokens. "
            "Please reduce the length of the messages or completion.",
            code=400,
        ),
        error(400, "The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        error(400, "the request exceeds the available context size, try increasing it"),
        error(400, "prompt is too long: 210000 tokens > 200000 maximum"),
        error(400, "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576)."),
        error(413, "Request too large: reduce the length of the messages"),
        http(422, {"error": "`inputs` must fit the context window of 4096"}),
    ],
)
@pytest.mark.usefixtures("no_backoff")
async def test_full_context_has_its_own_error(answer: bytes) -> None:
    async with endpoint([answer]) as server:
        with pytest.raises(ContextFullError, match="the context is full"):
            await ask(server.url)
    assert len(server.bodies) == 1


async def test_other_refusals_are_not_taken_for_a_full_context() -> None:
    async with endpoint([error(400, "max_tokens must be at least 1, got 0")]) as server:
        with pytest.raises(ModelError) as caught:
            await ask(server.url)
    assert not isinstance(caught.value, ContextFullError)


async def test_parameters_that_a_model_refuses_are_left_out_from_then_on() -> None:
    refuse_length = error(
        400,
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        code="unsupported_parameter",
        param="max_tokens",
    )
    refuse_temperature = error(
        400, "Unsupported value: 'temperature' does not support 0.", code="unsupported_value", param="temperature"
    )
    sampling = Sampling(temperature=0.0, max_tokens=9, seed=1)
    async with endpoint([refuse_length, refuse_temperature, OK]) as server, opened(server) as model:
        await model.chat(ASK, sampling)
        await model.chat(ASK, sampling)
    sent = [{name: body[name] for name in body if name not in ("model", "messages")} for body in server.bodies]
    assert sent == [
        {"temperature": 0.0, "max_tokens": 9, "seed": 1},
        {"temperature": 0.0, "max_completion_tokens": 9, "seed": 1},
        {"max_completion_tokens": 9, "seed": 1},
        {"max_completion_tokens": 9, "seed": 1},
    ]


@pytest.mark.parametrize("max_concurrent", [3, 40])
async def test_no_more_than_max_concurrent_requests_at_once(max_concurrent: int) -> None:
    under_way, most = 0, 0

    async def count(writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.2)
        under_way -= 1
        writer.write(OK)
        await writer.drain()

    async with endpoint([count]) as server, opened(server, max_concurrent=max_concurrent) as model:
        replies = await asyncio.gather(*(model.chat(ASK, Sampling()) for _ in range(2 * max_concurrent)))
    assert len(replies) == 2 * max_concurrent
    assert most == max_concurrent


async def test_requests_per_minute_spaces_them_evenly() -> None:
    async with endpoint([OK]) as server, opened(server, requests_per_minute=600) as model:
        started = time.monotonic()
        await asyncio.gather(*(model.chat(ASK, Sampling()) for _ in range(6)))
        seconds = time.monotonic() - started
    assert 0.5 <= seconds < 3  # five gaps of 0.1 s, and what a busy machine adds


async def test_cancelled_call_frees_its_place() -> None:
    arrived = asyncio.Event()

    async def sleep(writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.sleep(3)

    async with endpoint([sleep, OK]) as server, opened(server, max_concurrent=1) as model:
        call = asyncio.create_task(model.chat(ASK, Sampling()))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await model.chat(ASK, Sampling())).content == "Velm"
