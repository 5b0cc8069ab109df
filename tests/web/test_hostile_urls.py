"""No URL, name, address or redirect leads to this machine or its network, and each is refused for its reason.

Wherever a URL could arrive, it would arrive at the server here: it listens on the port that the URLs name, and its log
must stay empty.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hostile import RawServer, TableDns, told
from local_site import LocalSite, html

from webdancer.config import CrawlSettings
from webdancer.web.addresses import Refusal, Refused, policy_of, refusal_of_host_spelling
from webdancer.web.crawl import crawl
from webdancer.web.fetch import Fetcher, FetchProblem
from webdancer.web.live import LiveReader
from webdancer.web.protocol import PageNotFound, ToolFailure

HOSTILE = [
    # other schemes, and what is no URL
    ("file:///etc/passwd", Refusal.SCHEME),
    ("ftp://127.0.0.1:PORT/x", Refusal.SCHEME),
    ("gopher://127.0.0.1:PORT/_GET%20/x", Refusal.SCHEME),
    ("dict://127.0.0.1:PORT/x", Refusal.SCHEME),
    ("data:text/html,<p>x</p>", Refusal.SCHEME),
    ("javascript:fetch('http://127.0.0.1:PORT/')", Refusal.SCHEME),
    ("jar:http://127.0.0.1:PORT/!/x", Refusal.SCHEME),
    ("ws://127.0.0.1:PORT/", Refusal.SCHEME),
    ("127.0.0.1:PORT/x", Refusal.NO_URL),
    ("//127.0.0.1:PORT/x", Refusal.NO_URL),
    ("http:127.0.0.1:PORT/x", Refusal.NO_URL),
    ("http:/127.0.0.1:PORT/x", Refusal.NO_URL),
    ("http:///127.0.0.1:PORT/x", Refusal.NO_URL),
    ("http:\\\\127.0.0.1:PORT\\x", Refusal.NO_URL),
    ("http://:PORT/x", Refusal.NO_URL),
    ("http://", Refusal.NO_URL),
    ("", Refusal.NO_URL),
    # credentials, and parsers that disagree
    ("http://user:pass@127.0.0.1:PORT/x", Refusal.USERINFO),
    ("http://public.example@127.0.0.1:PORT/x", Refusal.USERINFO),
    ("http://127.0.0.1:PORT@public.example/x", Refusal.USERINFO),
    ("http://@127.0.0.1:PORT/x", Refusal.USERINFO),
    ("http://127.0.0.1:PORT\\@public.example/x", Refusal.USERINFO),
    ("http://public.example\\.127.0.0.1:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://127.0.0.1 .public.example:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://127.0.0.1\t:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://127.0.0.1\r\nHost: public.example:PORT/x", Refusal.BAD_PORT),
    ("http://127.0.0.1%00.public.example:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://127%2E0%2E0%2E1:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://public.example:80:PORT/x", Refusal.BAD_PORT),
    # IPv4 in all its spellings
    ("http://127.0.0.1:PORT/x", Refusal.LOOPBACK),
    ("http://127.255.255.254:PORT/x", Refusal.LOOPBACK),
    ("http://2130706433:PORT/x", Refusal.NUMERIC_HOST),
    ("http://0x7f000001:PORT/x", Refusal.NUMERIC_HOST),
    ("http://0x7F.0.0.1:PORT/x", Refusal.NUMERIC_HOST),
    ("http://127.0.0.0x1:PORT/x", Refusal.NUMERIC_HOST),
    ("http://017700000001:PORT/x", Refusal.NUMERIC_HOST),
    ("http://0177.0.0.1:PORT/x", Refusal.NUMERIC_HOST),
    ("http://127.0.0.01:PORT/x", Refusal.NUMERIC_HOST),
    ("http://127.1:PORT/x", Refusal.NUMERIC_HOST),
    ("http://127.0.1:PORT/x", Refusal.NUMERIC_HOST),
    ("http://0:PORT/x", Refusal.NUMERIC_HOST),
    ("http://127.0.0.1.:PORT/x", Refusal.TRAILING_DOT),
    ("http://localhost.:PORT/x", Refusal.TRAILING_DOT),
    ("http://0.0.0.0:PORT/x", Refusal.UNSPECIFIED),
    ("http://0.1.2.3:PORT/x", Refusal.RESERVED),
    ("http://10.0.0.1:PORT/x", Refusal.PRIVATE),
    ("http://172.16.0.1:PORT/x", Refusal.PRIVATE),
    ("http://172.31.255.255:PORT/x", Refusal.PRIVATE),
    ("http://192.168.1.1:PORT/x", Refusal.PRIVATE),
    ("http://100.64.0.1:PORT/x", Refusal.SHARED),
    ("http://100.100.100.200:PORT/latest/meta-data/", Refusal.METADATA),
    ("http://169.254.169.254:PORT/latest/meta-data/", Refusal.METADATA),
    ("http://169.254.170.2:PORT/v2/credentials", Refusal.METADATA),
    ("http://168.63.129.16:PORT/machine", Refusal.METADATA),
    ("http://169.254.1.1:PORT/x", Refusal.LINK_LOCAL),
    ("http://224.0.0.1:PORT/x", Refusal.MULTICAST),
    ("http://239.255.255.250:PORT/x", Refusal.MULTICAST),
    ("http://240.0.0.1:PORT/x", Refusal.RESERVED),
    ("http://255.255.255.255:PORT/x", Refusal.RESERVED),
    ("http://192.0.2.1:PORT/x", Refusal.RESERVED),
    ("http://198.18.0.1:PORT/x", Refusal.RESERVED),
    ("http://192.88.99.1:PORT/x", Refusal.SIX_TO_FOUR),
    # IPv6, and IPv4 inside it
    ("http://[::1]:PORT/x", Refusal.LOOPBACK),
    ("http://[0:0:0:0:0:0:0:1]:PORT/x", Refusal.LOOPBACK),
    ("http://[::]:PORT/x", Refusal.UNSPECIFIED),
    ("http://[::ffff:127.0.0.1]:PORT/x", Refusal.IPV4_MAPPED),
    ("http://[::ffff:7f00:1]:PORT/x", Refusal.IPV4_MAPPED),
    ("http://[::ffff:8.8.8.8]:PORT/x", Refusal.IPV4_MAPPED),
    ("http://[::ffff:0:127.0.0.1]:PORT/x", Refusal.IPV4_MAPPED),
    ("http://[::127.0.0.1]:PORT/x", Refusal.IPV4_COMPATIBLE),
    ("http://[64:ff9b::127.0.0.1]:PORT/x", Refusal.NAT64),
    ("http://[64:ff9b:1::7f00:1]:PORT/x", Refusal.NAT64),
    ("http://[2002:7f00:1::]:PORT/x", Refusal.SIX_TO_FOUR),
    ("http://[2001:0:7f00:1::]:PORT/x", Refusal.TEREDO),
    ("http://[fd00:ec2::254]:PORT/x", Refusal.METADATA),
    ("http://[fc00::1]:PORT/x", Refusal.PRIVATE),
    ("http://[fec0::1]:PORT/x", Refusal.PRIVATE),
    ("http://[fe80::1]:PORT/x", Refusal.LINK_LOCAL),
    ("http://[fe80::1%25lo]:PORT/x", Refusal.ZONE_ID),
    ("http://[fe80::1%lo]:PORT/x", Refusal.ZONE_ID),
    ("http://[ff02::1]:PORT/x", Refusal.MULTICAST),
    ("http://[2001:db8::1]:PORT/x", Refusal.RESERVED),
    ("http://[100::1]:PORT/x", Refusal.RESERVED),
    ("http://[4000::1]:PORT/x", Refusal.RESERVED),
    ("http://[127.0.0.1]:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://[::1:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://[::1]x:PORT/x", Refusal.ODD_CHARACTERS),
    # letters that turn into others
    ("http://１２７.０.０.１:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://127。0。0。1:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://①②⑦.⓪.⓪.①:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://127.0.0.1\u00ad.:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://local\u200bhost:PORT/x", Refusal.ODD_CHARACTERS),
    ("http://١٢٧.٠.٠.١:PORT/x", Refusal.NUMERIC_HOST),
    # names of this machine and its network
    ("http://localhost:PORT/x", Refusal.LOCAL_NAME),
    ("http://LOCALHOST:PORT/x", Refusal.LOCAL_NAME),
    ("http://a.localhost:PORT/x", Refusal.LOCAL_NAME),
    ("http://localhost.localdomain:PORT/x", Refusal.LOCAL_NAME),
    ("http://metadata.google.internal:PORT/x", Refusal.LOCAL_NAME),
    ("http://printer.local:PORT/x", Refusal.LOCAL_NAME),
    ("http://router.home.arpa:PORT/x", Refusal.LOCAL_NAME),
    ("http://redis:PORT/x", Refusal.LOCAL_NAME),
    # ports
    ("http://public.example:22/x", Refusal.PORT),
    ("http://public.example:25/x", Refusal.PORT),
    ("http://public.example:110/x", Refusal.PORT),
    ("https://public.example:6379/x", Refusal.PORT),
    ("http://public.example:11211/x", Refusal.PORT),
    ("http://93.184.216.34:2375/x", Refusal.PORT),
    ("http://public.example:0/x", Refusal.BAD_PORT),
    ("http://public.example:65536/x", Refusal.BAD_PORT),
    ("http://public.example:99999999999/x", Refusal.BAD_PORT),
    ("http://public.example:+80/x", Refusal.BAD_PORT),
    ("http://public.example:８０/x", Refusal.BAD_PORT),
    ("http://public.example:80x/x", Refusal.BAD_PORT),
]
HARMLESS = [
    "http://public.example/x",
    "HTTP://Public.Example:8080/x",
    "https://93.184.216.34/",
    "http://[2606:2800:220:1:248:1893:25c8:1946]:8080/x",
    "http://bücher.example/",
    "http://例え.テスト/",
    "http://xn--bcher-kva.example/",
    "http://under_score.example/",
    "http://1.example/",
    "http://127.0.0.1.example/",
    "http://0xcafe.example:8443/x?u=http://127.0.0.1/",
    "http://public.example/@127.0.0.1/",
]
DNS_ANSWERS = {
    "loopback.example": ("127.0.0.1", Refusal.LOOPBACK),
    "loopback6.example": ("::1", Refusal.LOOPBACK),
    "private.example": ("10.1.2.3", Refusal.PRIVATE),
    "metadata.example": ("169.254.169.254", Refusal.METADATA),
    "metadata6.example": ("fd00:ec2::254", Refusal.METADATA),
    "alibaba.example": ("100.100.100.200", Refusal.METADATA),
    "zone.example": ("fe80::1%1", Refusal.LINK_LOCAL),
    "mapped.example": ("::ffff:127.0.0.1", Refusal.IPV4_MAPPED),
    "nat64.example": ("64:ff9b::7f00:1", Refusal.NAT64),
    "zero.example": ("0.0.0.0", Refusal.UNSPECIFIED),
    "shared.example": ("100.64.1.1", Refusal.SHARED),
}


@pytest.fixture
async def site() -> AsyncIterator[LocalSite]:
    async with LocalSite() as site:
        site.pages["/robots.txt"] = (404, {}, b"")
        yield site


def settings(site: LocalSite, **changes: object) -> CrawlSettings:
    given = {"resolve": {"site.example": site.address}, "timeout_s": 3.0, "obey_robots": False}
    return CrawlSettings.model_validate(given | changes)


def test_the_table_is_long_enough() -> None:
    assert len(HOSTILE) + len(DNS_ANSWERS) >= 60
    assert {reason for _, reason in HOSTILE} == set(Refusal)


async def test_hostile_urls_are_refused_with_their_reason_and_nothing_arrives(site: LocalSite) -> None:
    urls = [(url.replace("PORT", str(site.port)), reason) for url, reason in HOSTILE]
    async with Fetcher(settings(site)) as fetcher, LiveReader(settings(site), cache_s=0) as reader:
        for url, reason in urls:
            assert told(fetcher.policy.refusal_of_url(url)) == reason, url
            result = await fetcher.fetch(url)
            assert result.problem in (
                FetchProblem.INVALID_URL,
                FetchProblem.PRIVATE_ADDRESS,
                FetchProblem.REFUSED_PORT,
            ), url
            with pytest.raises(ToolFailure, match="this URL is not read"):
                await reader.read(url)
    assert site.requests == []


async def test_redirects_to_hostile_urls_are_not_followed(site: LocalSite) -> None:
    """What a header cannot carry is left out, and so is what a redirect may say by itself: a relative address."""
    urls = [url.replace("PORT", str(site.port)) for url, reason in HOSTILE if reason is not Refusal.NO_URL]
    urls = ["//127.0.0.1:1/", *(url for url in urls if "\r" not in url)]
    for number, url in enumerate(urls):
        site.pages[f"/{number}"] = (302, {"Location": url}, b"")
    async with Fetcher(settings(site)) as fetcher, LiveReader(settings(site), cache_s=0) as reader:
        for number, url in enumerate(urls):
            result = await fetcher.fetch(f"http://site.example/{number}")
            assert result.problem in (
                FetchProblem.BAD_REDIRECT,
                FetchProblem.PRIVATE_ADDRESS,
                FetchProblem.REFUSED_PORT,
            ), url
            with pytest.raises(ToolFailure, match=r"redirects to something|must not be asked"):
                await reader.read(f"http://site.example/{number}")
    assert site.requests == [("site.example", f"/{number}") for number in range(len(urls)) for _ in range(2)]


async def test_a_second_hop_is_judged_as_the_first(site: LocalSite) -> None:
    dns = TableDns({"loopback.example": [["127.0.0.1"]]})
    site.pages |= {
        "/a": (302, {"Location": "/b"}, b""),
        "/b": (302, {"Location": f"http://loopback.example:{site.port}/secret"}, b""),
    }
    async with Fetcher(settings(site), dns=dns) as fetcher:
        result = await fetcher.fetch("http://site.example/a")
    assert (result.problem, len(result.redirects)) == (FetchProblem.PRIVATE_ADDRESS, 2)
    assert "loopback.example (127.0.0.1)" in result.detail
    assert site.paths == ["/a", "/b"]


@pytest.mark.parametrize("url", HARMLESS)
def test_harmless_urls_are_not_refused(url: str) -> None:
    assert policy_of(CrawlSettings()).refusal_of_url(url) is None


async def test_names_that_lead_inside_are_not_connected_to(site: LocalSite) -> None:
    dns = TableDns({name: [[address]] for name, (address, _) in DNS_ANSWERS.items()})
    async with Fetcher(settings(site), dns=dns) as fetcher:
        for name, (address, reason) in DNS_ANSWERS.items():
            result = await fetcher.fetch(f"http://{name}:{site.port}/x")
            assert result.problem is FetchProblem.PRIVATE_ADDRESS, name
            assert result.detail == str(Refused(reason, f"{name} ({address})"))
    assert site.requests == []
    assert dns.asked == list(DNS_ANSWERS)


async def test_one_address_inside_spoils_a_name_with_others(site: LocalSite) -> None:
    dns = TableDns({"mixed.example": [["93.184.216.34", "127.0.0.1"]]})
    async with Fetcher(settings(site), dns=dns) as fetcher:
        result = await fetcher.fetch(f"http://mixed.example:{site.port}/x")
    assert (result.problem, site.requests) == (FetchProblem.PRIVATE_ADDRESS, [])


async def _page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhere")
    await writer.drain()


async def test_a_name_that_changes_between_check_and_use_reaches_only_what_was_checked() -> None:
    """127.1.0.0/16 stands for the public internet, 127.0.0.1 for this machine; every connection asks for the name anew."""
    async with RawServer(_page, address="127.1.0.1") as public, RawServer(_page, port=public.port) as inside:
        dns = TableDns({"rebind.example": [["127.1.0.1"], ["127.0.0.1"]]})
        async with Fetcher(CrawlSettings(allow_private=("127.1.0.0/16",)), dns=dns) as fetcher:
            first = await fetcher.fetch(f"http://rebind.example:{public.port}/x")
            assert (first.body, dns.asked) == (b"here", ["rebind.example"])  # one answer served check and use
            again = await fetcher.fetch(f"http://rebind.example:{public.port}/x")
            assert again.body == b"here"  # the checked answer is remembered, the name not asked again
        async with Fetcher(CrawlSettings(allow_private=("127.1.0.0/16",)), dns=dns) as fetcher:
            later = await fetcher.fetch(f"http://rebind.example:{public.port}/x")
        assert later.problem is FetchProblem.PRIVATE_ADDRESS
        assert dns.asked == ["rebind.example"] * 2
        assert (public.num_connections, inside.num_connections) == (2, 0)


async def test_a_poisoned_dns_cache_opens_no_socket(site: LocalSite) -> None:
    async with Fetcher(settings(site), dns=TableDns({})) as fetcher:
        assert fetcher._session is not None
        cache = fetcher._session.connector._cached_hosts  # type: ignore[union-attr]
        found = await TableDns({"evil.example": [["127.0.0.1"]]}).resolve("evil.example", site.port)
        cache.add(("evil.example", site.port), found)
        result = await fetcher.fetch(f"http://evil.example:{site.port}/x")
    assert result.problem is FetchProblem.PRIVATE_ADDRESS
    assert site.requests == []


async def test_an_address_granted_to_one_name_is_not_granted_to_others(site: LocalSite) -> None:
    site.pages["/x"] = b"here"
    dns = TableDns({"intranet.example": [["127.0.0.1"]], "evil.example": [["127.0.0.1"]]})
    async with Fetcher(settings(site, allow_private=("intranet.example",)), dns=dns) as fetcher:
        assert (await fetcher.fetch(f"http://intranet.example:{site.port}/x")).body == b"here"
        assert (await fetcher.fetch(f"http://evil.example:{site.port}/x")).problem is FetchProblem.PRIVATE_ADDRESS
        assert (await fetcher.fetch(f"http://127.0.0.1:{site.port}/x")).problem is FetchProblem.PRIVATE_ADDRESS
    assert len(site.requests) == 1


async def test_proxies_and_passwords_of_the_environment_are_left_alone(
    site: LocalSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.pages["/x"] = b"here"
    async with RawServer(_page) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy.address}")
        netrc = tmp_path / "netrc"
        netrc.write_text("machine site.example login me password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        async with Fetcher(settings(site)) as fetcher:
            assert (await fetcher.fetch("http://site.example/x")).body == b"here"
        assert proxy.num_connections == 0
    assert "Authorization" not in site.headers[0]


async def test_headers_that_let_in_go_to_the_named_hosts_only(site: LocalSite) -> None:
    site.pages |= {
        "/a": (302, {"Location": f"http://other.example:{site.port}/b"}, b""),
        "/b": b"here",
    }
    own = {"Authorization": "Bearer s3cret", "X-Api-Key": "k", "Cookie": "c=1", "X-Note": "n"}
    dns = TableDns({"other.example": [["127.0.0.1"]]})
    given = settings(site, headers=own, allow_private=("127.0.0.1",))
    async with Fetcher(given, dns=dns) as fetcher:
        assert (await fetcher.fetch("http://site.example/a")).body == b"here"
    assert [{name: headers.get(name) for name in own} for headers in site.headers] == [
        own,
        {"Authorization": None, "X-Api-Key": None, "Cookie": None, "X-Note": "n"},
    ]


async def test_messages_of_refusals_hide_passwords(site: LocalSite) -> None:
    async with LiveReader(settings(site), cache_s=0) as reader:
        with pytest.raises(PageNotFound) as caught:
            await reader.read("http://me:hunter2@site.example/x")
    assert "hunter2" not in str(caught.value)


async def test_crawls_follow_no_link_inside(site: LocalSite, tmp_path: Path) -> None:
    inside = RawServer(_page)
    async with inside:
        links = [
            f"http://127.0.0.1:{inside.port}/x",
            f"http://localhost:{inside.port}/",
            f"http://[::1]:{inside.port}/",
        ]
        site.pages["/"] = html(*links, "/a")
        site.pages["/a"] = (302, {"Location": links[0]}, b"")
        given = settings(site, urls=("http://site.example/",), same_host=False)
        counts = await crawl(given, tmp_path / "snapshot")
        assert inside.num_connections == 0
    assert counts.num_errors == {"private_address": 4}


def test_a_hosts_spelling_is_judged_before_it_is_normalised() -> None:
    assert told(refusal_of_host_spelling("EXAMPLE.com")) is None
    assert told(refusal_of_host_spelling("a" * 254)) is Refusal.ODD_CHARACTERS
    assert told(refusal_of_host_spelling("a..b")) is Refusal.ODD_CHARACTERS
    assert told(refusal_of_host_spelling("-a.example")) is Refusal.ODD_CHARACTERS
