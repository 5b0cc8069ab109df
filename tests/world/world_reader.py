"""A small reader of the embedded web for the tests: decodes answers, follows links as a crawler would."""

import gzip
import html
import re
from collections import deque
from urllib.parse import urljoin, urlsplit

from protego import Protego

from webdancer.world.facts import Response, World

HREF = re.compile(r'href="([^"]+)"')


def get(world: World, url: str, **headers: str) -> Response:
    """The answer to a URL."""
    parts = urlsplit(url)
    return world.respond(parts.netloc, parts.path + (f"?{parts.query}" if parts.query else ""), headers)


def text_of(response: Response) -> str:
    """The HTML of an answer, decoded as its headers say."""
    body = gzip.decompress(response.body) if response.headers.get("Content-Encoding") == "gzip" else response.body
    return body.decode("latin-1" if "8859-1" in response.headers["Content-Type"] else "utf-8")


def visible(markup: str) -> str:
    """The main text without tags, entities resolved, white space folded."""
    main = re.search(r"<main.*?</main>", markup, re.DOTALL)
    assert main is not None
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", main[0])).split())


def reach(world: World) -> set[str]:
    """Every URL that answers 200 and can be reached from the roots over allowed ones; the calendar is left at its door."""
    rules = {host: Protego.parse(world.respond(host, "/robots.txt", {}).body.decode()) for host in world.hosts()}
    frontier, seen, found = deque(world.roots()), set(world.roots()), set()
    while frontier:
        url = frontier.popleft()
        answer = get(world, url)
        links = [urljoin(url, answer.headers["Location"])] if answer.status in (301, 302) else []
        if answer.status == 200:
            found.add(url)
            if answer.headers["Content-Type"].startswith("text/html"):
                links = [urljoin(url, html.unescape(href)).partition("#")[0] for href in HREF.findall(text_of(answer))]
        for link in links:
            host = urlsplit(link).netloc
            if (
                link not in seen
                and host in rules
                and "/calendar/" not in link
                and rules[host].can_fetch(link, "tester")
            ):
                seen.add(link)
                frontier.append(link)
    return found
