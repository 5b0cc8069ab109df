"""Tokens, and what a web page in the user's browser may not do, over real HTTP."""

import asyncio
import http.client
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import openai
import pytest
from agent_web import running
from fixtures import RuleModel

from webdancer.errors import ConfigError
from webdancer.serve.guard import Access, guarded, is_loopback, read_token
from webdancer.serve.openai_api import create_app

TOKEN = "s3cret-of-the-server"
BODY = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def served(access: Access) -> AsyncIterator[tuple[str, RuleModel]]:
    model = RuleModel(lambda messages: "hello")
    async with running(guarded(create_app({"echo": model}), access)) as root:
        yield root, model


async def asked(root: str, **headers: str) -> tuple[int, dict[str, object], dict[str, str]]:
    """Status, body and headers of a request that would cost a call of the model."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{root}/v1/chat/completions", json=BODY, headers=named) as reply,
    ):
        return reply.status, await reply.json(), dict(reply.headers)


async def test_the_openai_client_gets_in_with_the_token_and_not_without() -> None:
    async with (
        served(Access(token=TOKEN)) as (root, model),
        openai.AsyncOpenAI(base_url=f"{root}/v1", api_key=TOKEN, max_retries=0) as client,
    ):
        reply = await client.chat.completions.create(**BODY)  # type: ignore[call-overload]
        assert reply.choices[0].message.content == "hello"
        client.api_key = "wrong"
        for call in (client.models.list, lambda: client.chat.completions.create(**BODY)):  # type: ignore[call-overload]
            with pytest.raises(openai.AuthenticationError, match="a wrong bearer token") as caught:
                await call()
            assert caught.value.code == "invalid_api_key"
    assert model.num_calls == 1


@pytest.mark.parametrize("authorization", ["", TOKEN, "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"])
async def test_anything_but_the_token_is_401_of_openai_s_shape(authorization: str) -> None:
    async with served(Access(token=TOKEN)) as (root, model):
        status, body, headers = await asked(root, Authorization=authorization)
    assert status == 401
    assert body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    assert headers["WWW-Authenticate"] == "Bearer"
    assert TOKEN not in str(body)
    assert model.num_calls == 0


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST.:8000", "[::1]:8000", "a.localhost"])
async def test_loopback_by_any_name_may_ask(host: str) -> None:
    async with served(Access()) as (root, _):
        assert (await asked(root, Host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost@evil.example", "[", "10.0.0.1"]
)
async def test_a_name_that_was_rebound_to_loopback_may_not_ask(host: str) -> None:
    async with served(Access()) as (root, model):
        status, body, _ = await asked(root, Host=host)
    assert (status, body["error"]["code"]) == (403, "wrong_host")  # type: ignore[index]
    assert model.num_calls == 0


async def test_a_request_without_a_host_may_not_ask() -> None:
    async with served(Access()) as (root, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(root).port)
        writer.write(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert b" 403 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_another_bound_name_is_ours_and_a_token_stands_in_for_the_check() -> None:
    async with served(Access(host="localhost")) as (root, _):
        assert (await asked(root, Host="evil.example"))[0] == 403
    async with served(Access(token=TOKEN)) as (root, _):
        assert (await asked(root, Host="evil.example", Authorization=f"Bearer {TOKEN}"))[0] == 200
    async with served(Access(host="0.0.0.0")) as (root, _):
        assert (await asked(root, Host="box.example"))[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "file://", "http://127.0.0.1.evil.example"])
async def test_a_page_of_another_site_may_not_even_start_an_episode(origin: str) -> None:
    async with served(Access()) as (root, model):
        status, body, headers = await asked(root, Origin=origin)
    assert (status, body["error"]["code"]) == (403, "origin")  # type: ignore[index]
    assert "Access-Control-Allow-Origin" not in headers
    assert model.num_calls == 0


async def test_a_page_of_this_machine_may_ask_but_its_browser_lets_it_read_nothing() -> None:
    async with served(Access()) as (root, _):
        status, _, headers = await asked(root, Origin="http://localhost:3000")
    assert status == 200
    assert "Access-Control-Allow-Origin" not in headers


async def test_an_allowed_page_gets_through_the_browser_s_checks() -> None:
    page = "https://chat.example"
    async with served(Access(token=TOKEN, origins=(page,))) as (root, model):
        asks = {
            "Origin": page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        async with (
            aiohttp.ClientSession() as session,
            session.options(f"{root}/v1/chat/completions", headers=asks) as reply,
        ):
            assert reply.status == 200
            assert reply.headers["Access-Control-Allow-Origin"] == page
            assert reply.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        status, _, headers = await asked(root, Origin=page, Authorization=f"Bearer {TOKEN}")
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, page)
        status, _, headers = await asked(root, Origin=page)
        assert (status, headers["Access-Control-Allow-Origin"]) == (401, page)  # the page can read why
        status, _, headers = await asked(root, Origin="https://evil.example", Authorization=f"Bearer {TOKEN}")
        assert "Access-Control-Allow-Origin" not in headers
    async with served(Access(origins=(page,))) as (root, model):
        assert (await asked(root, Origin=page))[0] == 200
        assert (await asked(root, Origin="https://evil.example"))[0] == 403
    assert model.num_calls == 1


@pytest.mark.parametrize(
    ("access", "is_open"),
    [
        (Access(), False),
        (Access(host="localhost"), False),
        (Access(host="::1"), False),
        (Access(host="0.0.0.0"), True),
        (Access(host="0.0.0.0", token=TOKEN), False),
        (Access(host="192.168.1.2"), True),
    ],
)
def test_open_to_the_network(access: Access, is_open: bool) -> None:
    assert access.is_open is is_open


@pytest.mark.parametrize(("host", "ours"), [("127.8.8.8", True), ("localhost.", True), ("localhost.example", False)])
def test_loopback(host: str, ours: bool) -> None:
    assert is_loopback(host) is ours


def test_the_token_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WD_TOKEN", f" {TOKEN}\n")
    assert read_token("WD_TOKEN") == TOKEN
    assert read_token(None) is None
    for value, message in ((" ", "is not set"), ("a b", "odd characters"), ("é", "odd characters")):
        monkeypatch.setenv("WD_TOKEN", value)
        with pytest.raises(ConfigError, match=message):
            read_token("WD_TOKEN")


def test_serve_on_the_command_line_warns_and_asks_for_the_token() -> None:
    def start(*options: str) -> tuple[subprocess.Popen[str], int, str]:
        server = subprocess.Popen(
            [sys.executable, "-m", "webdancer", "serve", "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
            env={"WD_TOKEN": TOKEN, "PATH": ""},
        )
        assert server.stderr is not None
        line = server.stderr.readline()
        return server, urlsplit(line.split(" at ")[1].split()[0]).port or 0, line

    def status(port: int, **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/v1/models", headers=headers)
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    for options, warns, bare, with_token in (
        (("--host", "0.0.0.0"), True, 200, 200),
        (("--token-env", "WD_TOKEN"), False, 401, 200),
    ):
        server, port, line = start(*options)
        try:
            assert TOKEN not in line
            assert status(port) == bare
            assert status(port, Authorization=f"Bearer {TOKEN}") == with_token
        finally:
            server.terminate()
            server.wait(timeout=20)
            assert server.stderr is not None
            rest = server.stderr.read()  # communicate() with a timeout would pass over what readline() has buffered
            server.stderr.close()
        assert ("warning: anybody who reaches this address" in rest) is warns
