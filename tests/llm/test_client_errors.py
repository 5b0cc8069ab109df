"""What servers say when they fail: what is tried again, what is final, what a full context is, and that no key gets out."""

import json
import logging
import time
from pathlib import Path

import pytest
from asking import ASK, OK, ask, failure, opened
from http_script import Endpoint, completion, endpoint, error, http

from webdancer.config import EndpointSettings
from webdancer.errors import ConfigError, ContextFullError
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.failures import read_error, retry_after_s, retry_delay
from webdancer.llm.protocol import Sampling

CLOUDFLARE = """<!DOCTYPE html>
<html lang="en-US"><head><title>h | 524: A timeout
occurred</title></head><body>Cloudflare Ray ID: 8a</body></html>"""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        # OpenRouter: the model failed after the status was sent.
        (http(200, {"error": {"code": 502, "message": "Upstream died"}, "user_id": "u"}), "with the error 502"),
        (http(200, completion() | {"error": {"code": 503, "message": "No provider"}}), "with the error 503"),
        (http(200, {"error": "overloaded"}), "with the error 502"),
        (http(520, "<html><head><title>520: Web server</title></head></html>", content_type="text/html"), "status 520"),
        (http(524, CLOUDFLARE, content_type="text/html"), "status 524"),
        # DashScope throttles in its own words, and with OpenAI's code for a spent quota.
        (
            http(429, {"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded", "request_id": "r"}),
            "429",
        ),
        (http(429, {"error": {"code": "limit_burst_rate", "message": "Request rate increased too quickly"}}), "429"),
        (
            http(
                429,
                {
                    "error": {
                        "message": "You exceeded your current quota, please check your plan and billing details.",
                        "type": "insufficient_quota",
                        "code": "insufficient_quota",
                    },
                    "request_id": "r",
                },
            ),
            "429",
        ),
        (http(400, {"code": "Throttling", "message": "slow down", "request_id": "r"}), "status 400"),
        (http(200, '{"choices": [{"message": {"content": "Ve'), "not complete"),
        (http(200, "\n\n  \n"), "not complete"),  # keep-alive of DeepSeek and OpenRouter, and then nothing
        (http(500, ""), "(empty answer)"),
    ],
)
@pytest.mark.usefixtures("no_backoff")
async def test_what_passes_is_tried_again(answer: bytes, said: str) -> None:
    async with endpoint([answer, OK]) as server:
        assert (await ask(server.url)).content == "Velm"
    async with endpoint([answer]) as server:
        assert said in await failure(server.url, max_attempts=2)
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(402, "Insufficient credits", code=402), "quota is used up"),
        (http(402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}), "quota is used up"),
        (http(200, {"error": {"code": 402, "message": "Insufficient credits"}}), "quota is used up"),
        (error(429, "No credits", code="credit_balance_exhausted"), "quota is used up"),
        (
            http(400, {"error": {"code": "Arrearage", "message": "Access denied"}, "request_id": "r"}),
            "quota is used up",
        ),
        (
            http(
                403,
                {"code": "AllocationQuota.FreeTierOnly", "message": "The free tier is exhausted", "request_id": "r"},
            ),
            "quota is used up",
        ),
        (
            http(
                429,
                {"code": "Throttling.AllocationQuota", "message": "Free allocated quota exceeded.", "request_id": "r"},
            ),
            "quota is used up",
        ),
        (http(403, CLOUDFLARE, content_type="text/html"), "page titled"),
        (error(501, "Not implemented"), "status 501"),
        (http(307, "", Location="http://127.0.0.1:9/v1/chat/completions"), "a redirect"),
        (http(200, {"error": {"code": 400, "message": "bad prompt"}}), "with the error 400"),
        (http(200, {"error": {"code": "invalid_prompt", "message": "bad prompt"}}), "with the error 400"),
        (
            http(400, [{"error": {"code": 400, "message": "API key not valid", "status": "INVALID"}}]),
            "API key not valid",
        ),
    ],
)
@pytest.mark.usefixtures("no_backoff")
async def test_what_does_not_pass_is_final(answer: bytes, said: str) -> None:
    async with endpoint([answer]) as server:
        assert said in await failure(server.url)
    assert len(server.bodies) == 1


async def test_the_page_of_a_proxy_is_told_by_its_title_and_a_stream_is_advised() -> None:
    async with endpoint([http(524, CLOUDFLARE, content_type="text/html")]) as server:
        message = await failure(server.url, max_attempts=1)
    assert (
        "status 524: page titled 'h | 524: A timeout occurred'; a proxy gave up waiting; set stream = true" in message
    )


@pytest.mark.parametrize(
    "answer",
    [
        # vLLM
        error(400, "max_tokens must be at least 1, got -123."),
        http(
            400,
            {
                "object": "error",
                "message": "This model's maximum context length is 8192 tokens. However, your request has 9000 input tokens. "
                "Please reduce the length of the input messages.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
        ),
        error(
            400,
            "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 8192 tokens "
            "and your request has 5000 input tokens (4096 > 8192 - 5000).",
        ),
        # SGLang
        error(
            400,
            "Requested token count exceeds the model's maximum context length of 202752 tokens. You requested a total of "
            "202941 tokens: 170941 tokens from the input messages and 32000 tokens for the completion.",
        ),
        error(400, "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens)."),
        # llama.cpp, newer and older
        http(
            400,
            {
                "error": {
                    "code": 400,
                    "message": "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 9000,
                    "n_ctx": 8192,
                }
            },
        ),
        http(500, {"error": {"code": 500, "message": "too long", "type": "exceed_context_size_error"}}),
        # Ollama, DashScope
        http(400, {"error": "prompt too long; exceeded max context length by 12 tokens"}),
        error(400, "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 98304]"),
        # OpenRouter
        error(
            400, "This endpoint's maximum context length is 131072 tokens. However, you requested about 140000 tokens."
        ),
        http(
            400,
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {"raw": "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000"},
                }
            },
        ),
        http(200, {"error": {"code": "context_length_exceeded", "message": "too many"}}),
        # more than a minute's tokens, or than a proxy lets through
        error(
            429,
            "Request too large for gpt-4o in organization org on tokens per min (TPM): Limit 30000, Requested 31000.",
        ),
        http(413, "<html><head><title>413 Request Entity Too Large</title></head></html>", content_type="text/html"),
    ],
)
@pytest.mark.usefixtures("no_backoff")
async def test_a_full_context_in_the_words_of_each_server(answer: bytes) -> None:
    async with endpoint([answer]) as server:
        with pytest.raises(ContextFullError, match="the context is full"):
            await ask(server.url)
    assert len(server.bodies) == 1


# What a server asks to wait.


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After": "2"}, 2.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m1.5s"}, 361.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, None),  # not the limit that was hit
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, None),  # Azure
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_a_429_says_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(429, headers) == (None if seconds is None else pytest.approx(seconds))


def test_other_statuses_have_no_limit_to_be_reset() -> None:
    assert retry_after_s(500, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1s"}) is None


def test_openrouter_names_the_time_in_the_body() -> None:
    reset = str(int((time.time() + 30) * 1000))
    limits = {"X-RateLimit-Limit": "20", "X-RateLimit-Reset": reset}
    body = json.dumps({"error": {"code": 429, "message": "Rate limit", "metadata": {"headers": limits}}})
    problem = read_error(429, {}, body)
    assert problem.retry_after_s == pytest.approx(30, abs=2)
    delay = retry_delay(problem)
    assert 28 <= delay <= 32


async def test_a_402_that_says_when_to_come_back_is_tried_again() -> None:
    async with endpoint([error(402, "wait", Retry_After="0"), OK]) as server:
        assert (await ask(server.url)).content == "Velm"


# Keys.

KEY = "sk-very-secret-0123456789"


@pytest.mark.parametrize(
    "answer",
    [
        error(401, f"Incorrect API key provided: {KEY}."),
        http(500, f"<title>Bearer {KEY}</title>", content_type="text/html"),
        http(200, f"who is {KEY}?", content_type="text/html"),
        http(200, f'{{"key": "{KEY}'),
        http(200, {"error": {"message": f"bad key {KEY}", "code": KEY}}),
        error(400, f"maximum context length, {KEY}"),
    ],
)
@pytest.mark.usefixtures("no_backoff")
async def test_a_key_that_a_server_repeats_gets_nowhere(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    async with endpoint([answer]) as server:
        message = await failure(server.url, api_key_env="MY_KEY", max_attempts=2)
    assert f"Bearer {KEY}" in server.headers[0]
    assert KEY not in message + caplog.text
    assert "[key]" in message


async def test_the_key_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("k-file-123\n")
    monkeypatch.setenv("MY_KEY", "k-env-123")
    async with endpoint([OK, error(401, "no")]) as server:
        await ask(server.url, api_key_file=str(file), api_key_env="MY_KEY")
        assert f"check the key in {file}" in await failure(server.url, api_key_file=str(file))
    assert "Bearer k-file-123" in server.headers[0]


async def test_without_a_key_no_header_is_sent_though_netrc_holds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with endpoint([OK]) as server:
        await ask(server.url)
    assert "authorization" not in server.headers[0].lower()


def test_a_password_in_the_url_is_refused_unseen() -> None:
    with pytest.raises(ConfigError, match="holds a user or a password") as caught:
        OpenAIChatModel(EndpointSettings(base_url="https://me:hunter2@h/v1", model="m"))
    assert "hunter2" not in str(caught.value)


# Addresses.


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        (
            "/openai/deployments/gpt%2F4?api-version=2024-10-21",
            "/openai/deployments/gpt%2F4/chat/completions?api-version=2024-10-21",
        ),
    ],
)
async def test_the_address_of_the_completions(path: str, asked: str) -> None:
    async with endpoint([OK]) as server:
        await ask(server.url.removesuffix("/v1") + path)
    assert server.headers[0].startswith(f"POST {asked} HTTP/1.1\r\n")


async def test_a_proxy_of_the_environment_is_used_unless_the_host_is_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with endpoint([OK]) as proxy, endpoint([OK]) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with opened(Endpoint("http://model.invalid/v1")) as model:
            await model.chat(ASK, Sampling())
        await ask(server.url)
    assert proxy.headers[0].startswith("POST http://model.invalid/v1/chat/completions HTTP/1.1\r\n")
    assert (len(proxy.bodies), len(server.bodies)) == (1, 1)
