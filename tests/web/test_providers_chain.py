"""Providers that stand in for each other, and the opening of what the settings name."""

import re
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import stamina
from provider_servers import DOCS, KEY, SPEAKERS, ProviderServer, says

from webdancer.config import ProviderSettings, WebSettings
from webdancer.errors import BudgetError, ConfigError
from webdancer.web.protocol import SearchHit, SearchProvider, ToolFailure
from webdancer.web.providers import PROVIDERS, NamedSearch, ProviderRefused, open_search
from webdancer.web.providers.chain import Link, SearchChain

URLS = [doc.url for doc in DOCS[:3]]
EMPTY = {
    "serper": says(200, {"organic": []}),
    "tavily": says(200, {"results": []}),
    "brave": says(200, {"type": "search"}),
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("serper", "tavily", "brave"):
        monkeypatch.setenv(f"{name.upper()}_API_KEY", KEY)
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Chain:
    """A chain of real providers, each over its own server."""

    def __init__(self, **servers: ProviderServer) -> None:
        self.servers, self.clock = servers, Clock()

    async def __aenter__(self) -> "Chain":
        self._stack = AsyncExitStack()
        links = []
        for name, server in self.servers.items():
            await self._stack.enter_async_context(server)
            opened = PROVIDERS[name].open(ProviderSettings(base_url=server.url, max_attempts=2))
            links.append(Link(name, await self._stack.enter_async_context(opened)))
        self.chain = SearchChain(links, clock=self.clock)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def urls(self) -> list[str]:
        return [hit.url for hit in await self.chain.search("velm", num_results=3)]

    @property
    def counts(self) -> list[int]:
        """Requests that each server got."""
        return [len(server.requests) for server in self.servers.values()]


async def test_first_one_that_finds_something_answers() -> None:
    async with Chain(serper=ProviderServer(SPEAKERS["serper"]), brave=ProviderServer(SPEAKERS["brave"])) as chain:
        assert await chain.urls() == URLS
    assert chain.counts == [1, 0]
    assert chain.chain.name == "serper, brave"


async def test_failure_falls_through_and_is_asked_again_next_time() -> None:
    async with Chain(serper=ProviderServer(says(500, "x")), brave=ProviderServer(SPEAKERS["brave"])) as chain:
        assert await chain.urls() == URLS
        assert await chain.urls() == URLS
    assert chain.counts == [4, 2]


@pytest.mark.parametrize(
    ("answer", "left_out_s"),
    [
        (says(403, {"message": "Unauthorized."}), 600),
        (says(400, {"message": "Not enough credits"}), 600),
        (says(429, {"message": "Slow down"}), 60),
        (says(429, {"message": "Slow down"}, Retry_After="150"), 150),
        (says(429, {"message": "Tomorrow"}, Retry_After="86400"), 3600),
    ],
)
async def test_one_that_refuses_is_left_out_for_a_while(answer: object, left_out_s: int) -> None:
    server = ProviderServer(answer)  # type: ignore[arg-type]
    async with Chain(serper=server, brave=ProviderServer(SPEAKERS["brave"])) as chain:
        assert await chain.urls() == URLS
        asked = len(server.requests)
        chain.clock.now_s += left_out_s - 0.5
        assert await chain.urls() == URLS
        assert len(server.requests) == asked
        chain.clock.now_s += 1
        assert await chain.urls() == URLS
        assert len(server.requests) == 2 * asked


async def test_nothing_found_falls_through() -> None:
    async with Chain(serper=ProviderServer(EMPTY["serper"]), brave=ProviderServer(SPEAKERS["brave"])) as chain:
        assert await chain.urls() == URLS
    assert chain.counts == [1, 1]


async def test_nothing_found_by_one_that_answered_is_no_failure() -> None:
    """Whether the one that failed comes before or after."""
    async with Chain(serper=ProviderServer(EMPTY["serper"]), brave=ProviderServer(says(500, "x"))) as chain:
        assert await chain.urls() == []
    async with Chain(serper=ProviderServer(says(403, "x")), brave=ProviderServer(EMPTY["brave"])) as chain:
        assert await chain.urls() == []
        assert await chain.urls() == []
    assert chain.counts == [1, 2]


async def test_all_failed_names_each_with_its_reason() -> None:
    servers = {
        "serper": ProviderServer(says(403, {"message": f"Unauthorized: {KEY}"})),
        "tavily": ProviderServer(says(502, "<html><title>Bad gateway</title></html>", content_type="text/html")),
        "brave": ProviderServer(says(200, "<html>Log in</html>", content_type="text/html")),
    }
    async with Chain(**servers) as chain:
        with pytest.raises(ToolFailure) as caught:
            await chain.urls()
        assert not isinstance(caught.value, ProviderRefused)
        assert str(caught.value) == (
            "no search engine answered: "
            f"serper ({servers['serper'].url}/search): status 403: Unauthorized: [key]; check the key in $SERPER_API_KEY | "
            f"tavily ({servers['tavily'].url}/search): status 502: Bad gateway (2 attempts); "
            "try again later, or raise web.tavily.max_attempts | "
            f"brave ({servers['brave'].url}/res/v1/web/search): status 200, but the answer is an HTML page, expected JSON: "
            "'Log in'; check web.brave.base_url, or try again later"
        )
        chain.clock.now_s += 100
        with pytest.raises(ToolFailure, match=re.escape("$SERPER_API_KEY [not asked again for 500 s] | tavily")):
            await chain.urls()
    assert chain.counts == [1, 4, 2]


async def test_all_refused_is_a_refusal() -> None:
    async with Chain(serper=ProviderServer(says(403, "x")), brave=ProviderServer(says(402, "x"))) as chain:
        for _ in range(3):
            with pytest.raises(ProviderRefused) as caught:
                await chain.urls()
    assert chain.counts == [1, 1]
    assert caught.value.reason is None


class Own:
    """A search engine that is not ours."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, int, int | None]] = []

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        self.calls.append((query, num_results, year))
        if self.error is not None:
            raise self.error
        return [SearchHit("Own", "http://own.example/", None, "")]


async def test_spent_budget_and_bugs_do_not_fall_through() -> None:
    for error in (BudgetError("spent"), KeyError("bug")):
        second = Own()
        with pytest.raises(type(error)):
            await SearchChain([Link("a", Own(error=error)), Link("b", second)]).search("q")
        assert second.calls == []


async def test_failure_without_a_name_gets_one() -> None:
    chain = SearchChain([Link("snapshot", Own(error=ToolFailure("the index is gone")))])
    with pytest.raises(ToolFailure, match=r"^no search engine answered: snapshot: the index is gone$"):
        await chain.search("q", num_results=4, year=2021)


def test_replayed_refusal_has_a_message_only() -> None:
    refused = ProviderRefused("no")
    assert (str(refused), refused.reason, refused.retry_after_s) == ("no", None, None)


# Opening.


def settings(**values: object) -> WebSettings:
    return WebSettings.model_validate(values)


async def test_snapshot_alone_is_given_back() -> None:
    own = Own()
    async with open_search(settings(), snapshot=own) as search:
        assert search is own
    with pytest.raises(ConfigError, match=r"web.search names the snapshot, but there is none here"):
        async with open_search(settings(), snapshot=None):
            pass


async def test_one_provider_is_opened_and_closed() -> None:
    async with ProviderServer(SPEAKERS["brave"]) as server:
        section = {"base_url": server.url}
        async with open_search(settings(search=["brave"], brave=section), snapshot=Own()) as search:
            assert [hit.url for hit in await search.search("velm", num_results=3)] == URLS
        with pytest.raises(RuntimeError, match="closed"):
            await search.search("velm")


async def test_chain_is_in_the_order_of_the_settings_and_each_is_metered() -> None:
    calls: list[tuple[str, float]] = []

    class Metered:
        def __init__(self, provider: NamedSearch, section: ProviderSettings) -> None:
            self._provider, self._section = provider, section

        async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
            calls.append((self._provider.name, self._section.price_per_call))
            return await self._provider.search(query, num_results=num_results, year=year)

    def meter(provider: NamedSearch, section: ProviderSettings) -> SearchProvider:
        return Metered(provider, section)

    own = Own()
    async with ProviderServer(says(403, "x")) as serper, ProviderServer(EMPTY["tavily"]) as tavily:
        web = settings(
            search=["tavily", "serper", "snapshot"],
            serper={"base_url": serper.url, "price_per_call": 0.001},
            tavily={"base_url": tavily.url, "price_per_call": 0.008},
        )
        async with open_search(web, snapshot=own, meter=meter) as search:
            hits = await search.search("velm", num_results=4, year=2021)
            await search.search("velm")
    assert [hit.title for hit in hits] == ["Own"]
    assert own.calls == [("velm", 4, 2021), ("velm", 10, None)]
    assert calls == [("tavily", 0.008), ("serper", 0.001), ("tavily", 0.008)]


@pytest.mark.parametrize("names", [[], ["brave", "brave"]])
async def test_list_of_engines_must_make_sense(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"web.search: got {names}, expected one or more")):
        async with open_search(settings(search=names), snapshot=None):
            pass


async def test_missing_key_of_any_in_the_chain_is_seen_at_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAVILY_API_KEY")
    with pytest.raises(ConfigError, match="'TAVILY_API_KEY' is not set"):
        async with open_search(settings(search=["brave", "tavily"]), snapshot=None):
            pass
