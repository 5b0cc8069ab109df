"""What providers do when they fail: what is tried again, how often, and what the message says."""

import asyncio
import gzip
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import stamina
from provider_servers import KEY, SPEAKERS, Answer, ProviderServer, breaks_off, drips, hangs, hangs_up, says

from webdancer.config import ProviderSettings
from webdancer.errors import ConfigError
from webdancer.keys import read_key
from webdancer.web.protocol import SearchHit, ToolFailure
from webdancer.web.providers import PROVIDERS, ProviderRefused, RefusalReason

KEYED = ["serper", "tavily", "brave"]
APIS = [*KEYED, "searxng"]
PATHS = {"serper": "/search", "tavily": "/search", "brave": "/res/v1/web/search", "searxng": "/search"}
NO_BACKOFF = pytest.mark.usefixtures("no_backoff")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYED:
        monkeypatch.setenv(f"{name.upper()}_API_KEY", KEY)


@pytest.fixture
def no_backoff() -> Iterator[None]:
    """Retries without waiting; the number of attempts stays that of the settings."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


async def search(name: str, server: ProviderServer, **settings: object) -> list[SearchHit]:
    values = ProviderSettings.model_validate({"base_url": server.url, "timeout_s": 3.0, **settings})
    async with PROVIDERS[name].open(values) as provider:
        return await provider.search("velm", num_results=3)


async def failure(name: str, server: ProviderServer, **settings: object) -> ToolFailure:
    """The failure of a search, whose message is fit for a model."""
    with pytest.raises(ToolFailure) as caught:
        await search(name, server, **settings)
    message = str(caught.value)
    assert message.startswith(f"{name} ({server.url}{PATHS[name]}): ")
    assert KEY not in message
    assert not re.search(r"<\w|\n", message)
    assert len(message) < 600
    return caught.value


async def refusal(name: str, server: ProviderServer, **settings: object) -> ProviderRefused:
    found = await failure(name, server, **settings)
    assert isinstance(found, ProviderRefused)
    return found


@pytest.mark.parametrize("name", KEYED)
@pytest.mark.parametrize("status", [401, 403])
async def test_refused_key(name: str, status: int) -> None:
    async with ProviderServer(says(status, {"message": f"the key {KEY} is not known"})) as server:
        found = await refusal(name, server)
    assert found.reason is RefusalReason.KEY
    assert f"status {status}: the key [key] is not known; check the key in ${name.upper()}_API_KEY" in str(found)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("serper", "status 403: Unauthorized."),
        ("tavily", "status 401: Unauthorized: missing or invalid API key."),
        ("brave", "status 422: SUBSCRIPTION_TOKEN_INVALID: The provided subscription token is invalid."),
    ],
)
async def test_wrong_key_as_each_provider_answers_it(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "wrong-key")
    async with ProviderServer(SPEAKERS[name]) as server:
        found = await refusal(name, server, api_key_env="MY_KEY")
    assert found.reason is RefusalReason.KEY
    assert f"{said}; check the key in $MY_KEY" in str(found)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("serper", says(400, {"message": "Not enough credits", "statusCode": 400})),
        ("serper", says(402, {"message": "Pay first"})),
        ("tavily", says(432, {"detail": {"error": "This request exceeds your plan's set usage limit."}})),
        ("tavily", says(433, {"detail": {"error": "This request exceeds the pay-as-you-go limit."}})),
        ("brave", says(429, {"type": "ErrorResponse", "error": {"code": "QUOTA_LIMITED", "detail": "Quota exceeded"}})),
        ("brave", says(402, {"type": "ErrorResponse", "error": {"code": "USAGE_LIMIT_EXCEEDED", "detail": "Limit"}})),
    ],
)
@NO_BACKOFF
async def test_spent_quota_is_not_tried_again(name: str, answer: Answer) -> None:
    async with ProviderServer(answer) as server:
        found = await refusal(name, server)
    assert found.reason is RefusalReason.QUOTA
    assert "the quota or the money of the account is used up" in str(found)
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", APIS)
@NO_BACKOFF
async def test_too_many_requests_are_tried_again_and_then_refused(name: str) -> None:
    limited = says(429, {"type": "ErrorResponse", "error": {"code": "RATE_LIMITED", "detail": "limit for plan"}})
    async with ProviderServer(SPEAKERS[name], limited, limited) as server:
        assert len(await search(name, server)) == 3
    assert len(server.requests) == 3
    async with ProviderServer(limited) as server:
        found = await refusal(name, server, max_attempts=4)
    assert found.reason is RefusalReason.RATE
    assert f"(4 attempts); set web.{name}.requests_per_minute" in str(found)
    assert len(server.requests) == 4


async def test_retry_after_in_seconds_is_honoured() -> None:
    async with ProviderServer(SPEAKERS["serper"], says(429, "slow down", Retry_After="1")) as server:
        assert len(await search("serper", server)) == 3
    # The second that was asked for, and up to one of jitter.
    assert 1.0 <= server.requests[1].at_s - server.requests[0].at_s < 2.5


async def test_retry_after_as_a_date_is_honoured() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    async with ProviderServer(SPEAKERS["brave"], says(503, "back soon", Retry_After=soon)) as server:
        assert len(await search("brave", server)) == 3
    assert 0.9 <= server.requests[1].at_s - server.requests[0].at_s < 3.5


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_that_is_too_long_is_reported(as_date: bool) -> None:
    wait = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True) if as_date else "121"
    async with ProviderServer(SPEAKERS["tavily"], says(429, {"detail": "daily limit"}, Retry_After=wait)) as server:
        started = time.monotonic()
        found = await refusal("tavily", server)
    assert time.monotonic() - started < 2
    assert found.reason is RefusalReason.RATE
    assert found.retry_after_s is not None
    assert found.retry_after_s > 120
    assert len(server.requests) == 1


async def test_backoff_waits_without_a_header() -> None:
    async with ProviderServer(SPEAKERS["serper"], says(500, "x", Retry_After="soon")) as server:
        await search("serper", server)
    assert 0.5 <= server.requests[1].at_s - server.requests[0].at_s < 2.5


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("status", [408, 500, 502, 503, 529])
@NO_BACKOFF
async def test_passing_failures_are_tried_again(name: str, status: int) -> None:
    page = "<html><head><title>Bad gateway</title></head><body>" + "nginx " * 200 + "</body></html>"
    broken = says(status, page, content_type="text/html")
    async with ProviderServer(SPEAKERS[name], broken, broken) as server:
        assert len(await search(name, server)) == 3
    assert len(server.requests) == 3
    async with ProviderServer(broken) as server:
        found = await failure(name, server, max_attempts=2)
    assert not isinstance(found, ProviderRefused)
    assert f"status {status}: Bad gateway nginx nginx" in str(found)
    assert f"… (2 attempts); try again later, or raise web.{name}.max_attempts" in str(found)
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("answer", [breaks_off, hangs_up])
@NO_BACKOFF
async def test_cut_off_answers_are_tried_again(name: str, answer: Answer) -> None:
    async with ProviderServer(SPEAKERS[name], answer) as server:
        assert len(await search(name, server)) == 3
    assert len(server.requests) == 2
    async with ProviderServer(answer) as server:
        found = await failure(name, server, max_attempts=3)
    assert "connection failed: " in str(found)
    assert "(3 attempts); check the network and base_url" in str(found)
    assert len(server.requests) == 3


@NO_BACKOFF
async def test_connection_that_is_refused() -> None:
    async with ProviderServer(SPEAKERS["serper"]) as server:
        pass
    found = await failure("serper", server, max_attempts=2)
    assert "connection failed: Cannot connect to host 127.0.0.1" in str(found)
    assert "(2 attempts)" in str(found)


@pytest.mark.parametrize("name", APIS)
@NO_BACKOFF
async def test_slow_servers_time_out_and_are_tried_again(name: str) -> None:
    async with ProviderServer(SPEAKERS[name], hangs) as server:
        assert len(await search(name, server, timeout_s=0.3)) == 3
    async with ProviderServer(hangs) as server:
        found = await failure(name, server, timeout_s=0.2, max_attempts=2)
    assert f"no answer within timeout_s = 0.2 s (2 attempts); try again later, or raise web.{name}.timeout_s" in str(
        found
    )
    assert len(server.requests) == 2


async def test_dripping_server_times_out_too() -> None:
    """Bytes that keep arriving must not keep a call alive for ever."""
    async with ProviderServer(drips) as server:
        started = time.monotonic()
        found = await failure("serper", server, timeout_s=0.4, max_attempts=1)
    assert "no answer within timeout_s = 0.4 s; " in str(found)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", APIS)
async def test_html_in_place_of_json(name: str) -> None:
    read_key(env="SERPER_API_KEY", file=None, what="another provider")  # SearXNG reads none itself
    page = f"<!DOCTYPE html><html><script>var k='{KEY}'</script><body>Log in to the <b>hotel</b> network {KEY}</body></html>"
    async with ProviderServer(says(200, page, content_type="text/html")) as server:
        found = await failure(name, server)
    assert "the answer is an HTML page, expected JSON: 'Log in to the hotel network [key]'; check web." in str(found)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "no JSON, expected JSON: ''"),
        (b'{"organic": [{"tit', 'no JSON, expected JSON: \'{"organic": [{"tit\''),
        (b"\xff\xfe\xfa", "no JSON"),
        (b"[" * 200_000, "no JSON"),
        (b'{"organic": ' + b"1" * 5000 + b"}", "no JSON"),
    ],
)
async def test_json_that_is_none(body: bytes, problem: str) -> None:
    async with ProviderServer(says(200, body)) as server:
        assert problem in str(await failure("serper", server))


async def test_answer_that_is_too_large_is_not_read_to_its_end() -> None:
    """Compressed, so that it is small on the wire."""
    bomb = gzip.compress(b'{"organic": [' + b" " * 60_000_000 + b"]}")
    async with ProviderServer(says(200, bomb, Content_Encoding="gzip")) as server:
        started = time.monotonic()
        assert "the answer is larger than 10000000 bytes" in str(await failure("serper", server))
    assert time.monotonic() - started < 2
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_keys_do_not_follow_redirects(name: str, status: int) -> None:
    async with ProviderServer(SPEAKERS[name]) as other:
        away = says(status, "", Location=f"{other.url}{PATHS[name]}?q=x&api_key={KEY}")
        async with ProviderServer(away) as server:
            found = await failure(name, server)
    assert f"status {status}: redirects to {other.url}{PATHS[name]}, which is not followed" in str(found)
    assert f"set web.{name}.base_url" in str(found)
    assert other.requests == []


@pytest.mark.parametrize("name", APIS)
async def test_request_that_the_provider_does_not_take(name: str) -> None:
    async with ProviderServer(says(400, {"detail": [{"loc": ["query"], "msg": "too long"}]})) as server:
        found = await failure(name, server)
    assert not isinstance(found, ProviderRefused)
    assert 'status 400: [{"loc": ["query"], "msg": "too long"}]; the provider refuses this request' in str(found)
    async with ProviderServer(says(404, "nothing here", content_type="text/plain")) as server:
        assert f"status 404: nothing here; check web.{name}.base_url" in str(await failure(name, server))


async def test_key_that_is_cut_in_two_by_shortening_is_hidden() -> None:
    """Redacting after the cut left the first half of a key that lay across it."""
    said = "x" * 190 + KEY + "y" * 50
    async with ProviderServer(says(400, {"message": said})) as server:
        message = str(await failure("serper", server))
    assert KEY[:6] not in message
    assert "x" * 190 + "[key]yyyyy…" in message


async def test_password_in_the_address_stays_out_of_messages() -> None:
    async with ProviderServer(says(500, "down")) as server:
        settings = ProviderSettings(base_url=server.url.replace("//", "//ann:hunter2@"), max_attempts=1)
        async with PROVIDERS["searxng"].open(settings) as provider:
            with pytest.raises(ToolFailure) as caught:
                await provider.search("velm")
    assert "hunter2" not in str(caught.value)
    assert f"searxng ({server.url}/search): status 500: down" in str(caught.value)


def test_password_and_key_cannot_both_be_sent() -> None:
    with pytest.raises(ConfigError, match="drop one of them"):
        PROVIDERS["tavily"].open(ProviderSettings(base_url="https://ann:pw@api.example"))


async def test_requests_at_once_are_bounded_and_connections_are_kept() -> None:
    async def slow(seen: object) -> object:
        await asyncio.sleep(0.03)
        return SPEAKERS["serper"](seen)  # type: ignore[arg-type]

    async with ProviderServer(slow) as server:  # type: ignore[arg-type]
        settings = ProviderSettings(base_url=server.url, max_concurrent=2, timeout_s=0.5)
        async with PROVIDERS["serper"].open(settings) as provider:
            # Twenty of them take longer than the time-out, which must not run while they wait for their turn.
            await asyncio.gather(*(provider.search(f"q{number}") for number in range(40)))
    assert server.max_at_once == 2
    assert len(server.requests) == 40
    assert len(server.peers) == 2


async def test_requests_a_minute_are_bounded() -> None:
    async with ProviderServer(SPEAKERS["brave"]) as server:
        settings = ProviderSettings(base_url=server.url, requests_per_minute=600)
        async with PROVIDERS["brave"].open(settings) as provider:
            await asyncio.gather(*(provider.search(f"q{number}") for number in range(6)))
    times = sorted(seen.at_s for seen in server.requests)
    assert times[5] - times[0] >= 0.45  # five waits of 0.1 s


async def test_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with ProviderServer(SPEAKERS["searxng"]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with PROVIDERS["searxng"].open(ProviderSettings(base_url="http://search.example")) as provider:
            assert len(await provider.search("velm", num_results=3)) == 3
        monkeypatch.setenv("no_proxy", "search.example")
        async with ProviderServer(SPEAKERS["searxng"]) as server:
            assert len(await search("searxng", server)) == 3
    assert [seen.target.partition("?")[0] for seen in proxy.requests] == ["http://search.example/search"]


async def test_cancelled_search_ends_at_once() -> None:
    async with (
        ProviderServer(hangs) as server,
        PROVIDERS["serper"].open(ProviderSettings(base_url=server.url)) as provider,
    ):
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await provider.search("velm")
        assert time.monotonic() - started < 1
    assert len(server.requests) == 1
