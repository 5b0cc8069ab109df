"""Each search provider over HTTP against a server that speaks its documented format and checks what it is sent."""

from collections.abc import Iterator
from datetime import date

import pytest
import stamina
from provider_servers import DOCS, KEY, SPEAKERS, ProviderServer, of_year, says

from webdancer.config import ProviderSettings
from webdancer.errors import ConfigError
from webdancer.web.protocol import SearchHit, ToolFailure
from webdancer.web.providers import PROVIDERS, ProviderRefused
from webdancer.web.providers.base import PagedSearch

KEYED = ["serper", "tavily", "brave"]
APIS = [*KEYED, "searxng"]
WITH_YEAR = KEYED


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYED:
        monkeypatch.setenv(f"{name.upper()}_API_KEY", KEY)


@pytest.fixture
def no_backoff() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def provider(name: str, server: ProviderServer, **settings: object) -> PagedSearch:
    return PROVIDERS[name].open(ProviderSettings.model_validate({"base_url": server.url, **settings}))


async def search(
    name: str,
    server: ProviderServer,
    query: str = "velm",
    *,
    num_results: int = 10,
    year: int | None = None,
    **settings: object,
) -> list[SearchHit]:
    async with provider(name, server, **settings) as opened:
        return await opened.search(query, num_results=num_results, year=year)


async def test_serper_sends_and_reads_its_format() -> None:
    async with ProviderServer(SPEAKERS["serper"]) as server:
        hits = await search("serper", server, "韦尔姆 在哪里?", num_results=2, params={"gl": "cn", "hl": "zh-cn"})
    assert hits == [
        SearchHit("Page 0", "https://site0.example/page", date(2020, 3, 1), "About 韦尔姆 在哪里? & more"),
        SearchHit("Page 1", "https://site1.example/page", date(2021, 3, 2), "About 韦尔姆 在哪里? & more"),
    ]
    assert len(server.requests) == 1
    assert server.requests[0].body == {"q": "韦尔姆 在哪里?", "num": 2, "gl": "cn", "hl": "zh-cn"}
    assert server.requests[0].headers["X-API-KEY"] == KEY
    assert KEY not in server.requests[0].target


async def test_tavily_sends_and_reads_its_format() -> None:
    params = {"topic": "news", "search_depth": "basic", "include_domains": '["example"]', "chunks_per_source": "3"}
    async with ProviderServer(SPEAKERS["tavily"]) as server:
        hits = await search("tavily", server, "韦尔姆", num_results=2, params=params)
    assert hits == [
        SearchHit("Page 0", "https://site0.example/page", date(2020, 3, 1), "About 韦尔姆"),
        SearchHit("Page 1", "https://site1.example/page", date(2021, 3, 2), "About 韦尔姆"),
    ]
    assert server.requests[0].body == {
        "query": "韦尔姆",
        "max_results": 2,
        "topic": "news",
        "search_depth": "basic",
        "include_domains": ["example"],
        "chunks_per_source": 3,
    }
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_tavily_general_results_have_no_date() -> None:
    async with ProviderServer(SPEAKERS["tavily"]) as server:
        hits = await search("tavily", server, num_results=1)
    assert hits == [SearchHit("Page 0", "https://site0.example/page", None, "About velm")]


async def test_brave_sends_and_reads_its_format() -> None:
    async with ProviderServer(SPEAKERS["brave"]) as server:
        hits = await search("brave", server, "韦尔姆 a&b", num_results=1, params={"country": "ALL"})
    assert hits == [SearchHit("Page 0 & more", "https://site0.example/page", date(2020, 3, 1), "About 韦尔姆 a&b")]
    seen = server.requests[0]
    assert seen.query == {
        "q": "韦尔姆 a&b",
        "count": "1",
        "offset": "0",
        "country": "ALL",
        "text_decorations": "false",
        "result_filter": "web",
    }
    assert seen.headers["X-Subscription-Token"] == KEY


async def test_brave_answers_nothing_found_without_a_web_part() -> None:
    async with ProviderServer(SPEAKERS["brave"]) as server:
        assert await search("brave", server, year=1999) == []


async def test_brave_queries_that_are_too_long_are_not_sent() -> None:
    async with ProviderServer(SPEAKERS["brave"]) as server:
        with pytest.raises(ToolFailure, match="got a query of 401 characters and 1 words, expected at most 400 and 50"):
            await search("brave", server, "x" * 401)
        with pytest.raises(ToolFailure, match="101 characters and 51 words"):
            await search("brave", server, " ".join("x" * 51))
        assert len(await search("brave", server, "x" * 400)) == 10
    assert len(server.requests) == 1


async def test_searxng_sends_and_reads_its_format() -> None:
    async with ProviderServer(SPEAKERS["searxng"]) as server:
        hits = await search("searxng", server, "韦尔姆", num_results=2, params={"language": "zh", "engines": "bing"})
    assert hits == [
        SearchHit("Page 0", "https://site0.example/page", date(2020, 3, 1), "About 韦尔姆"),
        SearchHit("Page 1", "https://site1.example/page", None, "About 韦尔姆"),
    ]
    seen = server.requests[0]
    assert seen.query == {"q": "韦尔姆", "format": "json", "pageno": "1", "language": "zh", "engines": "bing"}
    assert "Authorization" not in seen.headers


async def test_searxng_sends_a_token_only_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", KEY)
    async with ProviderServer(SPEAKERS["searxng"]) as server:
        await search("searxng", server, api_key_env="MY_TOKEN")
        await search("searxng", server, base_url=server.url.replace("//", "//ann:pw@"))
    assert [seen.headers["Authorization"] for seen in server.requests] == [f"Bearer {KEY}", "Basic YW5uOnB3"]


async def test_searxng_adds_the_year_and_drops_what_is_dated_outside() -> None:
    """Of pages 0 to 9 the even ones are dated: 0 (2020), 2 (2022), 4 (2021), 6 (2020), 8 (2022)."""
    async with ProviderServer(SPEAKERS["searxng"]) as server:
        hits = await search("searxng", server, "velm", year=2021)
        again = await search("searxng", server, "velm of 2021", year=2021)
    assert [hit.title for hit in hits] == ["Page 1", "Page 3", "Page 4", "Page 5", "Page 7", "Page 9"]
    assert [hit.title for hit in again] == [hit.title for hit in hits]
    assert [seen.query["q"] for seen in server.requests] == ["velm 2021", "velm of 2021"]


async def test_searxng_without_json_says_how_to_enable_it() -> None:
    page = "<!doctype html><html lang=en><title>403 Forbidden</title><h1>Forbidden</h1><p>You don&#39;t have the permission"
    async with ProviderServer(SPEAKERS["searxng"], says(403, page, content_type="text/html")) as server:
        with pytest.raises(
            ProviderRefused, match=r"enable JSON in the instance's settings.yml: search: formats: \[html, json\]"
        ) as caught:
            await search("searxng", server)
    assert "status 403: 403 Forbidden Forbidden You don't have the permission" in str(caught.value)
    assert len(server.requests) == 1


async def test_searxng_whose_engines_are_all_silent_has_failed() -> None:
    """An empty answer would read as if nothing were known."""
    empty = {"query": "q", "results": [], "unresponsive_engines": [["google", "CAPTCHA"], ["bing", "timeout"]]}
    nothing = {"query": "q", "results": [], "unresponsive_engines": []}
    async with ProviderServer(says(200, nothing), says(200, empty)) as server:
        with pytest.raises(ToolFailure, match="these engines did not answer: google: CAPTCHA; bing: timeout"):
            await search("searxng", server)
        assert await search("searxng", server) == []


@pytest.mark.parametrize("name", WITH_YEAR)
async def test_year_is_asked_of_the_provider(name: str) -> None:
    async with ProviderServer(SPEAKERS[name]) as server:
        hits = await search(name, server, year=2021)
    assert [hit.url for hit in hits] == [doc.url for doc in of_year(2021)[:10]]
    assert len(server.requests) == 1


@pytest.mark.parametrize(("name", "num_requests"), [("serper", 3), ("tavily", 1), ("brave", 2), ("searxng", 3)])
async def test_more_results_than_one_request_brings(name: str, num_requests: int) -> None:
    expected = 20 if name == "tavily" else 25
    async with ProviderServer(SPEAKERS[name]) as server, provider(name, server) as opened:
        hits = await opened.search("velm", num_results=25)
        assert [hit.url for hit in hits] == [doc.url for doc in DOCS[:expected]]
        assert opened.num_answered == len(server.requests) == num_requests


@pytest.mark.parametrize("name", ["serper", "brave", "searxng"])
async def test_paging_ends_with_the_results(name: str) -> None:
    async with ProviderServer(SPEAKERS[name]) as server:
        hits = await search(name, server, num_results=100)
    assert [hit.url for hit in hits] == [doc.url for doc in DOCS]
    # 45 results and the page that shows that there are no more.
    assert len(server.requests) == {"serper": 6, "brave": 4, "searxng": 6}[name]


@pytest.mark.usefixtures("no_backoff")
async def test_failure_of_a_later_page_keeps_the_pages_before() -> None:
    speak = SPEAKERS["serper"]
    async with ProviderServer(says(500, "down"), speak) as server:
        hits = await search("serper", server, num_results=30, max_attempts=2)
    assert [hit.url for hit in hits] == [doc.url for doc in DOCS[:10]]
    assert len(server.requests) == 3


FOUND: dict[str, tuple[str, ...]] = {
    "serper": ("organic", "link", "snippet"),
    "tavily": ("results", "url", "content"),
    "brave": ("results", "url", "description"),
    "searxng": ("results", "url", "content"),
}


def answer_of(name: str, results: object) -> dict[str, object]:
    if name == "brave":
        return {"type": "search", "web": {"results": results}}
    return {FOUND[name][0]: results}


@pytest.mark.parametrize("name", APIS)
async def test_results_are_cleaned(name: str) -> None:
    _, url, snippet = FOUND[name]
    first = "HTTPS://A.example:443/x?utm_source=q#top"
    results = [
        {"title": "A &amp; <b>B</b>\n\u200b C", url: first, snippet: "<p>one</p><p>two\ttwo</p>"},
        {"title": "the same", url: "https://a.example/x", snippet: "again"},
        {"title": "script", url: "javascript:alert(1)", snippet: "no"},
        {"title": "file", url: "file:///etc/passwd", snippet: "no"},
        {"title": 7, url: "http://b.example/", snippet: None},
        {"title": "no address", url: ["http://c.example/"], snippet: "no"},
        {url: "http://d.example/", snippet: "\ud83d half"},
    ]  # fmt: skip
    async with ProviderServer(says(200, answer_of(name, results))) as server:
        hits = await search(name, server)
    assert hits == [
        SearchHit("A & B C", "https://a.example/x", None, "one two two"),
        SearchHit("http://b.example/", "http://b.example/", None, ""),
        SearchHit("http://d.example/", "http://d.example/", None, "? half"),
    ]


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("results", [None, "none", {"0": {}}, ["https://a.example/"], [None]])
async def test_answer_of_another_shape_is_a_failure(name: str, results: object) -> None:
    async with ProviderServer(says(200, answer_of(name, results))) as server:
        with pytest.raises(ToolFailure, match=r"the answer is not in the API's format: .*(organic|results)"):
            await search(name, server)


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("body", [{}, [], "x", None, {"message": "gone"}])
async def test_answer_without_results_is_a_failure(name: str, body: object) -> None:
    """An error that is sent with status 200 must not read as nothing found."""
    async with ProviderServer(says(200, body if body is not None else "null")) as server:
        with pytest.raises(ToolFailure, match=f"^{name} .*status 200, but the answer is no"):
            await search(name, server)


@pytest.mark.parametrize("name", APIS)
async def test_results_that_all_lack_an_address_are_a_failure(name: str) -> None:
    async with ProviderServer(says(200, answer_of(name, [{"title": "T"}, {"title": "U"}]))) as server:
        with pytest.raises(ToolFailure, match=rf"^{name}: .*none of its 2 results has an http\(s\) address"):
            await search(name, server)


@pytest.mark.parametrize("name", APIS)
async def test_nothing_found_is_no_failure(name: str) -> None:
    async with ProviderServer(says(200, answer_of(name, []))) as server:
        assert await search(name, server) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", KEYED)
async def test_results_dated_outside_of_the_year_are_dropped(name: str) -> None:
    _, url, snippet = FOUND[name]
    dated = {"serper": "date", "tavily": "published_date", "brave": "age"}[name]
    results = [
        {"title": "a", url: "http://a.example/", snippet: "", dated: "2021年3月3日"},
        {"title": "b", url: "http://b.example/", snippet: "", dated: "Dec 31, 2020"},
        {"title": "c", url: "http://c.example/", snippet: "", dated: "long ago"},
        {"title": "d", url: "http://d.example/", snippet: "", dated: "2022-01-01"},
    ]
    async with ProviderServer(says(200, answer_of(name, results))) as server:
        hits = await search(name, server, year=2021)
    assert [(hit.title, hit.published) for hit in hits] == [("a", date(2021, 3, 3)), ("c", None)]


@pytest.mark.parametrize("name", KEYED)
def test_missing_key_is_seen_at_opening(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"{name.upper()}_API_KEY"
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigError, match=f"web.{name}: the key is missing: .*'{variable}' is not set; export it"):
        PROVIDERS[name].open(ProviderSettings())
    monkeypatch.setenv(variable, "kéy")
    with pytest.raises(ConfigError, match="odd characters"):
        PROVIDERS[name].open(ProviderSettings())
    with pytest.raises(ConfigError, match="'OTHER_KEY', which is not set"):
        PROVIDERS[name].open(ProviderSettings(api_key_env="OTHER_KEY"))


async def test_key_from_a_file_goes_before_the_variable(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("keys") / "serper"
    file.write_text("sk-from-file\n")
    async with ProviderServer(SPEAKERS["serper"]) as server:
        with pytest.raises(ProviderRefused, match=f"check the key in {file}"):
            await search("serper", server, api_key_file=str(file))
    assert server.requests[0].headers["X-API-KEY"] == "sk-from-file"


def test_searxng_needs_its_address() -> None:
    with pytest.raises(ConfigError, match=r"web.searxng.base_url is missing; set it to the URL of an instance"):
        PROVIDERS["searxng"].open(ProviderSettings())


@pytest.mark.parametrize(
    "url", ["localhost:8080", "", "ftp://h", "http://", "/search", "http://h/?q=1", "http://h:port"]
)
def test_address_must_be_one(url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"searxng: got base_url '.*', expected a URL such as 'https://HOST'|is missing"
    ):
        PROVIDERS["searxng"].open(ProviderSettings(base_url=url))


def test_the_list_of_providers_says_what_each_needs() -> None:
    assert {name: found.key_env for name, found in PROVIDERS.items()} == {
        "serper": "SERPER_API_KEY",
        "tavily": "TAVILY_API_KEY",
        "brave": "BRAVE_API_KEY",
        "searxng": None,
        "duckduckgo": None,
    }
