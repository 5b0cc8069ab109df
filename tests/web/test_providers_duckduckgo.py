"""DuckDuckGo through ddgs: the library's own requests and parser, over HTTP, against a server with pages of that shape."""

import asyncio
import sys
import time
from collections.abc import Iterator

import pytest
import stamina
from ddgs.engines.duckduckgo import Duckduckgo
from provider_servers import DOCS, HTML, Answer, ProviderServer, duckduckgo, hangs, hangs_up, of_year, says

from webdancer.config import ProviderSettings
from webdancer.errors import ConfigError
from webdancer.web.protocol import SearchHit, ToolFailure
from webdancer.web.providers import PROVIDERS, ProviderRefused, RefusalReason

NO_BACKOFF = pytest.mark.usefixtures("no_backoff")


@pytest.fixture
def no_backoff() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


async def search(
    monkeypatch: pytest.MonkeyPatch,
    server: ProviderServer,
    query: str = "velm",
    *,
    num_results: int = 10,
    year: int | None = None,
    **settings: object,
) -> list[SearchHit]:
    monkeypatch.setattr(Duckduckgo, "search_url", f"{server.url}/html/")
    values = ProviderSettings.model_validate({"timeout_s": 3.0, **settings})
    async with PROVIDERS["duckduckgo"].open(values) as provider:
        return await provider.search(query, num_results=num_results, year=year)


async def failure(monkeypatch: pytest.MonkeyPatch, server: ProviderServer, **settings: object) -> ToolFailure:
    with pytest.raises(ToolFailure) as caught:
        await search(monkeypatch, server, **settings)  # type: ignore[arg-type]
    assert str(caught.value).startswith("duckduckgo (https://html.duckduckgo.com): ")
    return caught.value


async def test_library_is_asked_and_its_results_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProviderServer(duckduckgo) as server:
        hits = await search(monkeypatch, server, "韦尔姆 在哪里?", num_results=2, params={"region": "cn-zh"})
    assert hits == [
        SearchHit("Page 0", "https://site0.example/page", None, "About 韦尔姆 在哪里?"),
        SearchHit("Page 1", "https://site1.example/page", None, "About 韦尔姆 在哪里?"),
    ]
    assert len(server.requests) == 1
    assert (server.requests[0].method, server.requests[0].path) == ("POST", "/html/")
    assert server.requests[0].form == {"q": "韦尔姆 在哪里?", "b": "", "l": "cn-zh"}
    assert "Mozilla" in server.requests[0].headers["User-Agent"]


async def test_further_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten results, then fifteen."""
    async with ProviderServer(duckduckgo) as server:
        hits = await search(monkeypatch, server, num_results=22)
    assert [hit.url for hit in hits] == [doc.url for doc in DOCS[:22]]
    assert [seen.form.get("s") for seen in server.requests] == [None, "10"]


async def test_year(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProviderServer(duckduckgo) as server:
        hits = await search(monkeypatch, server, year=2021)
    assert [hit.url for hit in hits] == [doc.url for doc in of_year(2021)[:10]]
    assert server.requests[0].form["df"] == "2021-01-01..2021-12-31"


async def test_nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProviderServer(duckduckgo) as server:
        assert await search(monkeypatch, server, year=1999) == []


CHALLENGE = '<html><form id="challenge-form"><div class="anomaly-modal__title">Select all squares</div></form></html>'


@pytest.mark.parametrize(
    "answer",
    [
        says(202, CHALLENGE, content_type=HTML),
        says(200, CHALLENGE, content_type=HTML),
        says(403, "Forbidden", content_type="text/plain"),
        says(429, "", content_type="text/plain"),
    ],
)
@NO_BACKOFF
async def test_being_taken_for_a_machine_is_a_refusal(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """The library itself takes such answers for empty results."""
    async with ProviderServer(answer) as server:
        found = await failure(monkeypatch, server)
    assert isinstance(found, ProviderRefused)
    assert found.reason is RefusalReason.RATE
    assert "takes us for a machine, or gets too many requests; set web.duckduckgo.requests_per_minute" in str(found)
    assert len(server.requests) == 1


@NO_BACKOFF
async def test_passing_failures_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = says(503, "<html><h1>Service unavailable</h1></html>", content_type=HTML)
    async with ProviderServer(duckduckgo, broken, broken) as server:
        assert len(await search(monkeypatch, server)) == 10
    assert len(server.requests) == 3
    async with ProviderServer(broken) as server:
        found = await failure(monkeypatch, server, max_attempts=2)
    assert not isinstance(found, ProviderRefused)
    assert "status 503: Service unavailable (2 attempts); try again later" in str(found)
    assert len(server.requests) == 2


@NO_BACKOFF
async def test_slow_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProviderServer(hangs) as server:
        started = time.monotonic()
        found = await failure(monkeypatch, server, timeout_s=0.5, max_attempts=2)
        assert time.monotonic() - started < 3
    assert "no answer within timeout_s = 0.5 s (2 attempts)" in str(found)
    assert len(server.requests) == 2


@NO_BACKOFF
async def test_connections_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProviderServer(hangs_up) as server:
        found = await failure(monkeypatch, server, max_attempts=1)
    assert "connection failed: " in str(found)
    found = await failure(monkeypatch, server, max_attempts=2)
    assert "connection failed: ConnectError (2 attempts); check the network and params.proxy" in str(found)


@NO_BACKOFF
async def test_password_of_the_proxy_stays_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProviderServer(duckduckgo) as server:
        pass
    found = await failure(
        monkeypatch, server, params={"proxy": server.url.replace("//", "//ann:hunter2@")}, max_attempts=1
    )
    assert "hunter2" not in str(found)


async def test_proxy_is_asked_for_duckduckgo_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProviderServer(duckduckgo) as proxy:
        monkeypatch.setattr(Duckduckgo, "search_url", "http://html.duckduckgo.com/html/")
        settings = ProviderSettings(params={"proxy": proxy.url, "verify": "false"})
        async with PROVIDERS["duckduckgo"].open(settings) as provider:
            assert len(await provider.search("velm")) == 10
    assert proxy.requests[0].headers["Host"] == "html.duckduckgo.com"


async def test_event_loop_goes_on_and_requests_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library blocks; it must not block us."""

    async def slow(seen: object) -> object:
        await asyncio.sleep(0.1)
        return duckduckgo(seen)  # type: ignore[arg-type]

    monkeypatch.setattr(Duckduckgo, "search_url", "")
    async with ProviderServer(slow) as server:  # type: ignore[arg-type]
        monkeypatch.setattr(Duckduckgo, "search_url", f"{server.url}/html/")
        async with PROVIDERS["duckduckgo"].open(ProviderSettings(max_concurrent=3)) as provider:
            found = await asyncio.gather(*(provider.search(f"q{number}") for number in range(9)))
    assert [len(hits) for hits in found] == [10] * 9
    assert {hit.snippet for hit in found[4]} == {"About q4"}
    assert server.max_at_once == 3


def test_library_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "ddgs" or name.startswith("ddgs.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ddgs", None)
    with pytest.raises(
        ConfigError, match=r"duckduckgo, which needs the ddgs library .*: pip install 'webdancer\[live\]'"
    ):
        PROVIDERS["duckduckgo"].open(ProviderSettings())


def test_settings_without_a_meaning_are_refused() -> None:
    with pytest.raises(ConfigError, match="base_url has no meaning here"):
        PROVIDERS["duckduckgo"].open(ProviderSettings(base_url="http://localhost"))
    with pytest.raises(ConfigError, match=r"got params \['backend'\], expected some of"):
        PROVIDERS["duckduckgo"].open(ProviderSettings(params={"backend": "auto"}))
