"""The reader over r.jina.ai against a server that speaks its format."""

import json
from collections.abc import AsyncIterator, Callable
from datetime import date

import pytest
from aiohttp import web
from local_site import LocalSite

from webdancer.config import ProviderSettings
from webdancer.errors import ConfigError
from webdancer.web.jina import JinaReader
from webdancer.web.protocol import PageNotFound, ToolFailure
from webdancer.web.providers.attempts import ProviderRefused

KEY = "jina_0123456789abcdef"
URL = "https://museum.example/ferry"


@pytest.fixture
async def jina(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalSite]:
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    async with LocalSite() as site:
        yield site


def settings(site: LocalSite, **changes: object) -> ProviderSettings:
    given = {"base_url": f"http://{site.address}", "max_attempts": 1, "timeout_s": 5.0}
    return ProviderSettings.model_validate(given | changes)


def answers(*replies: tuple[int, object], seen: list[object] | None = None) -> Callable[..., object]:
    """An answer that gives the replies (status, body) in turn, the last one for ever."""
    left = list(replies)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if seen is not None:
            seen.append((request.method, await request.json()))
        status, body = left.pop(0) if len(left) > 1 else left[0]
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type="application/json")

    return answer


def page(**changes: object) -> dict[str, object]:
    data = {
        "title": "The ferry",
        "description": "",
        "url": "https://museum.example/ferry/",
        "content": "The ferry was built in 1931.\n\n## Crew\n\n*   Odessa Quill",
        "publishedTime": "2021-03-04T10:00:00+00:00",
        "usage": {"tokens": 20},
    }
    return {"code": 200, "status": 20000, "data": data | changes}


def failure(code: int, name: str, status: int, message: str) -> dict[str, object]:
    said = {"name": name, "status": status, "message": message, "readableMessage": f"{name}: {message}"}
    return {"data": None, "code": code, **said}


async def test_a_page_is_read(jina: LocalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_API_KEY", KEY)
    seen: list[object] = []
    jina.pages["/"] = answers((200, page()), seen=seen)  # type: ignore[assignment]
    async with JinaReader(settings(jina, params={"X-Locale": "de"})) as reader:
        found = await reader.read(URL + "?utm_source=x#top")
    assert (found.url, found.title, found.published) == (
        "https://museum.example/ferry/",
        "The ferry",
        date(2021, 3, 4),
    )
    assert found.text == "# The ferry\nThe ferry was built in 1931.\n\n## Crew\n\n*   Odessa Quill"
    assert seen == [("POST", {"url": URL})]
    sent = jina.headers[0]
    assert {name: sent[name] for name in ("Accept", "Authorization", "X-Locale", "X-Retain-Images")} == {
        "Accept": "application/json",
        "Authorization": f"Bearer {KEY}",
        "X-Locale": "de",
        "X-Retain-Images": "none",
    }


async def test_without_a_key_none_is_sent(jina: LocalSite) -> None:
    jina.pages["/"] = answers((200, page()))  # type: ignore[assignment]
    async with JinaReader(settings(jina)) as reader:
        await reader.read(URL)
    assert "Authorization" not in jina.headers[0]


async def test_a_key_that_the_settings_name_must_be_there(jina: LocalSite) -> None:
    with pytest.raises(ConfigError, match=r"web\.jina.*'MY_JINA_KEY'"):
        JinaReader(settings(jina, api_key_env="MY_JINA_KEY"))


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (200, page(warning="Target URL returned error 404: Not Found"), PageNotFound, "no such page"),
        (200, page(warning="Target URL returned error 410: Gone"), PageNotFound, "no such page"),
        (200, page(warning="Target URL returned error 403: Forbidden"), ToolFailure, "its server answered HTTP 403"),
        (200, page(content=""), ToolFailure, "holds no text"),
        (200, page(content=None), ToolFailure, "holds no text"),
        (200, {"code": 200, "data": None}, ToolFailure, "not in the API's format"),
        (200, "<html>proxy</html>", ToolFailure, "expected JSON"),
        (401, failure(401, "AuthenticationFailedError", 40101, "Invalid API key"), ProviderRefused, "Invalid API key"),
        (
            402,
            failure(402, "InsufficientBalanceError", 40201, "Account balance not enough"),
            ProviderRefused,
            "balance",
        ),
        (422, failure(422, "AssertionFailureError", 42206, "Failed to goto " + URL), ToolFailure, "Failed to goto"),
        (429, failure(429, "RateLimitTriggeredError", 42903, "Per IP rate limit"), ProviderRefused, "rate limit"),
        (451, failure(451, "SecurityCompromiseError", 45102, "Domain blocked"), ToolFailure, "Domain blocked"),
        (500, "", ToolFailure, "status 500"),
    ],
)
async def test_failures(jina: LocalSite, status: int, body: object, kind: type[ToolFailure], told: str) -> None:
    jina.pages["/"] = answers((status, body))  # type: ignore[assignment]
    async with JinaReader(settings(jina)) as reader:
        with pytest.raises(ToolFailure, match=told) as caught:
            await reader.read(URL)
    assert type(caught.value) is kind


async def test_a_key_that_the_server_repeats_is_not_shown(jina: LocalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_API_KEY", KEY)
    said = failure(401, "AuthenticationFailedError", 40101, f"Invalid API key {KEY}")
    jina.pages["/"] = answers((401, said), (200, page(content=f"Your key is {KEY}.")))  # type: ignore[assignment]
    async with JinaReader(settings(jina)) as reader:
        with pytest.raises(ProviderRefused) as caught:
            await reader.read(URL)
        assert KEY not in str(caught.value)
        assert KEY not in (await reader.read(URL)).text


async def test_a_busy_server_is_asked_again(jina: LocalSite) -> None:
    busy = failure(429, "RateLimitTriggeredError", 42903, "Per IP rate limit")
    jina.pages["/"] = answers((429, busy), (200, page()))  # type: ignore[assignment]
    async with JinaReader(settings(jina, max_attempts=2)) as reader:
        assert (await reader.read(URL)).title == "The ferry"
    assert len(jina.requests) == 2


async def test_refusals_of_us_are_not_remembered_but_failures_of_pages_are(jina: LocalSite) -> None:
    limit = failure(429, "RateLimitTriggeredError", 42903, "Per IP rate limit")
    gone = page(warning="Target URL returned error 404: Not Found")
    jina.pages["/"] = answers((429, limit), (200, gone))  # type: ignore[assignment]
    async with JinaReader(settings(jina), cache_s=600) as reader:
        with pytest.raises(ProviderRefused):
            await reader.read(URL)
        for _ in range(2):
            with pytest.raises(PageNotFound):
                await reader.read(URL)
    assert len(jina.requests) == 2


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1/x", ToolFailure),
        ("http://intranet/x", ToolFailure),
        ("http://wiki.corp/x", ToolFailure),
        ("http://[fd00::1]/x", ToolFailure),
        ("http://public.example:6379/x", ToolFailure),
        ("http://me:secret@public.example/x", PageNotFound),
        ("file:///etc/passwd", PageNotFound),
        ("museum.example/ferry", PageNotFound),
    ],
)
async def test_no_inner_host_goes_to_a_third_party(jina: LocalSite, url: str, kind: type[ToolFailure]) -> None:
    async with JinaReader(settings(jina)) as reader:
        with pytest.raises(ToolFailure, match="this URL is not read") as caught:
            await reader.read(url)
    assert type(caught.value) is kind
    assert jina.requests == []


def test_parameters_that_are_no_headers(jina: LocalSite) -> None:
    with pytest.raises(ConfigError, match=r"web\.jina\.params"):
        JinaReader(settings(jina, params={"X-Locale": "de\r\nX-Evil: 1"}))
