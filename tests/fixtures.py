"""A scripted model and a web held in memory, shared by the tests. Everything between them is the real code."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime

from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import Page, Usage
from webdancer.web.protocol import PageNotFound, SearchHit

Reply = str | ChatReply | Exception | Callable[[Sequence[Message]], "Reply"]


class ScriptedModel:
    """Gives its replies in turn (an exception is raised, a function is asked), and keeps what it was shown."""

    def __init__(self, replies: Iterable[Reply], *, name: str = "scripted", delay_s: float = 0.0) -> None:
        self.name, self._replies, self._delay_s = name, iter(replies), delay_s
        self.calls: list[tuple[tuple[Message, ...], Sampling]] = []

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        self.calls.append((tuple(messages), sampling))
        await asyncio.sleep(self._delay_s)
        reply = next(self._replies)
        while callable(reply):
            reply = reply(messages)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, ChatReply):
            return reply
        return ChatReply(reply, usage=Usage(prompt_tokens=100, completion_tokens=10, llm_calls=1))


class RuleModel:
    """Answers every call by a function of the messages."""

    def __init__(self, rule: Callable[[Sequence[Message]], str], *, name: str = "rule") -> None:
        self.name, self._rule, self.num_calls = name, rule, 0

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        self.num_calls += 1
        return ChatReply(self._rule(messages), usage=Usage(llm_calls=1))


class MemoryWeb:
    """A search engine and a reader over a few pages; a page or query may be an exception, raised when it is asked for."""

    def __init__(self, pages: dict[str, Page | Exception], broken_queries: dict[str, Exception] | None = None) -> None:
        self.pages, self.broken_queries = pages, broken_queries or {}
        self.searches: list[tuple[str, int, int | None]] = []

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        self.searches.append((query, num_results, year))
        if query in self.broken_queries:
            raise self.broken_queries[query]
        words = set(query.lower().split())
        found = [page for page in self.pages.values() if isinstance(page, Page)]
        found = [page for page in found if words & set(f"{page.title} {page.text}".lower().split())]
        found = [page for page in found if year is None or (page.published and page.published.year == year)]
        return [SearchHit(p.title, p.url, p.published, p.text[:120]) for p in found[:num_results]]

    async def read(self, url: str) -> Page:
        if url not in self.pages:
            raise PageNotFound(f"no page at {url}")
        page = self.pages[url]
        if isinstance(page, Exception):
            raise page
        return page


def make_page(url: str, title: str, text: str, *, published: date | None = None) -> Page:
    return Page(
        url=url,
        title=title,
        text=text,
        published=published,
        fetched_at=datetime(2025, 1, 1, tzinfo=UTC),
        content_hash=hashlib.sha256(text.encode()).hexdigest(),
    )


def call_turn(thought: str, name: str, **arguments: object) -> str:
    """A turn with a tool call, written out by hand rather than by the renderer under test."""
    return (
        f"<think>\n{thought}\n</think>\n<tool_call>\n"
        + json.dumps({"name": name, "arguments": arguments})
        + "\n</tool_call>"
    )


def answer_turn(thought: str, answer: str) -> str:
    return f"<think>\n{thought}\n</think>\n<answer>\n{answer}\n</answer>"


def summary(evidence: str, text: str) -> str:
    """A well-formed reply of the summariser."""
    return json.dumps({"rational": "r", "evidence": evidence, "summary": text})
