"""The tools search and visit, and what further tools an agent is given, behind one call (paper, section 3.1).

Observations have the shapes of the authors' release, or, where the settings say so, the same in fewer words. Whatever comes
from the web, from the summariser or from a further tool is neutralised, so that no page can speak as the model. A failure is a
visible line `Error: …` with its type, never an empty text.
"""

import asyncio
import copy
import json
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Self

from pydantic import BaseModel, JsonValue

from webdancer.agent.cuts import cut_evidence, cut_snippet
from webdancer.agent.format import neutralise, whole_characters
from webdancer.agent.passages import PassageRanker, choose_passages
from webdancer.agent.schemas import (
    NO_EXTRA,
    TOOL_SCHEMAS,
    ArgumentError,
    ExtraCall,
    ExtraTools,
    SearchCall,
    UnknownToolError,
    check_call,
)
from webdancer.config import AgentSettings
from webdancer.errors import ModelError
from webdancer.llm.prompts import fill_prompt, one_line
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.llm.structured import ask_json
from webdancer.records import Page, ToolError
from webdancer.web.protocol import PageNotFound, PageReader, SearchHit, SearchProvider, ToolFailure

_LOG = logging.getLogger(__name__)
_SEPARATOR = "\n=======\n"
_LINE_END = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_LINE_START = rf"(?:^|(?<=[{_LINE_END}]))"
_BLANK = rf"(?:[^\S{_LINE_END}]|[\u200b-\u200f\u2060\ufeff])*"
"""Spaces within a line, also those without width."""
_SEPARATOR_LINE = re.compile(rf"{_LINE_START}{_BLANK}={{7}}(?={_BLANK}(?:[{_LINE_END}]|$))")
_HEADING = re.compile(
    rf"{_LINE_START}(?={_BLANK}(?:(?:Evidence in page|Evidence|Summary|Results):|What \S+ says about the goal|A search for \"))"
)
_HEADING_WORDS = ("Evidence", "Summary:", "Results:", " says about the goal", 'A search for "')
_LOOKS_OURS = re.compile(rf"{_BLANK}(?:\d+\. \[|Date: |## )|{_HEADING.pattern}")
"""A line that begins as a result, its date or a heading does."""
_FALLBACK_CHARS = 2000
"""Characters of the page's nearest passages that stand in for the evidence when the summariser fails."""
_MAX_REASKS = 1
"""A reply that does not parse is told what is wrong with it once; then passages stand in."""
_MAX_SUMMED_UP_LINES = 2
"""In the brief shapes, evidence of so few lines is left out."""


class Source(NamedTuple):
    """A page that was read."""

    url: str
    title: str


class ToolResult(NamedTuple):
    """What a call brought: the observation, and the type of the first failure in it (a tool's own before a missing page)."""

    observation: str
    error: ToolError | None = None
    num_unsummarised: int = 0
    """Pages of this call whose summary failed and was replaced by the page's nearest passages."""
    sources: tuple[Source, ...] = ()
    """Pages that this call read."""


class PageReport(BaseModel):
    """The summariser's reply."""

    rational: str = ""
    evidence: str
    summary: str


class Reading(NamedTuple):
    """What a page says about a goal."""

    page: Page
    evidence: str
    summary: str
    summarised: bool = True
    """False where the summariser failed, and the page's nearest passages are the evidence."""


class Toolbox:
    """Runs the tools over one web.

    Args:
        search: the search engine.
        reader: gives pages by URL.
        summariser: reads a page for a goal.
        settings: how many results, queries and characters, and how long a call may take.
        ranker: orders the passages of a long page by meaning; None goes by words.
    """

    def __init__(
        self,
        search: SearchProvider,
        reader: PageReader,
        summariser: ChatModel,
        settings: AgentSettings,
        *,
        ranker: PassageRanker | None = None,
    ) -> None:
        self._search, self._reader, self._summariser, self._settings = search, reader, summariser, settings
        self._ranker = ranker

    extra: ExtraTools = NO_EXTRA
    """The tools besides search and visit."""

    def with_extra(self, extra: ExtraTools) -> Self:
        """The same toolbox with further tools, by the names under which the model calls them."""
        box = copy.copy(self)
        box.extra = extra
        return box

    def schemas(self) -> tuple[dict[str, JsonValue], ...]:
        """What the model is told of the tools."""
        return (*TOOL_SCHEMAS, *(tool.schema for tool in self.extra.values()))

    async def search(self, query: str, *, year: int | None = None) -> list[SearchHit]:
        """The best pages for a query, as many as the settings say, their snippets cut.

        Raises:
            ToolFailure: the search engine did not answer.
        """
        hits = await self._search.search(query, num_results=self._settings.num_results, year=year)
        most = self._settings.max_snippet_chars
        if most is None:
            return hits
        return [replace(hit, snippet=cut_snippet(hit.snippet, query, title=hit.title, max_chars=most)) for hit in hits]

    async def read(self, url: str) -> Page:
        """The page under a URL.

        Raises:
            ToolFailure: there is none, or it could not be had.
        """
        return await self._reader.read(url)

    async def visit(self, url: str, goal: str) -> Reading:
        """Read the page under a URL for a goal.

        Raises:
            ToolFailure: there is none, or it could not be had.
        """
        page = await self._reader.read(url)
        try:
            report = await self._summarise(page, goal)
            reading = Reading(page, report.evidence, report.summary)
        except ModelError as error:
            _LOG.warning("the summariser failed on %s, its nearest passages are given instead: %s", url, error)
            evidence = choose_passages(page.text, goal, max_chars=min(_FALLBACK_CHARS, self._settings.max_page_chars))
            summary = "No summary could be made; the evidence shows the passages of the page nearest to the goal."
            reading = Reading(page, evidence, summary, summarised=False)
        return reading._replace(evidence=cut_evidence(reading.evidence, max_chars=self._settings.max_evidence_chars))

    async def call(self, name: str, arguments: dict[str, JsonValue]) -> ToolResult:
        """Run one call. A wrong call or a failing tool is told in the observation and typed in `error`."""
        try:
            call = check_call(name, arguments, self.extra)
        except UnknownToolError as error:
            return ToolResult(f"Error: {neutralise(one_line(str(error)))}", ToolError.UNKNOWN_TOOL)
        except ArgumentError as error:
            return ToolResult(f"Error: {neutralise(one_line(f'{name}: {error}'))}", ToolError.INVALID_ARGUMENTS)
        if isinstance(call, ExtraCall):
            result = await self._guarded(name, lambda _: self._run_extra(call))
        elif isinstance(call, SearchCall):
            year = call.year
            result = await self._each(call.queries, "queries", lambda query: self._run_search(query, year))
        else:
            goal = call.goal
            result = await self._each(call.urls, "pages", lambda url: self._run_visit(url, goal))
        return result._replace(observation=whole_characters(result.observation))

    async def _each(self, items: Sequence[str], noun: str, run: Callable[[str], Awaitable[ToolResult]]) -> ToolResult:
        """Run the first `max_queries` items side by side and join what they bring in the order of the call."""
        if len(items) == 1:
            return await self._guarded(items[0], run)
        used = items[: self._settings.max_queries]
        ended = await asyncio.gather(*(self._guarded(item, run) for item in used), return_exceptions=True)
        results = []
        for result in ended:
            if isinstance(result, BaseException):  # a spent budget, say: the calls beside it were paid for
                raise result
            results.append(result)
        parts = [result.observation for result in results]
        if len(used) < len(items):
            parts.append(f"Note: {len(items)} {noun} were given; only the first {len(used)} were used.")
        errors = [result.error for result in results if result.error is not None]
        error = next(
            (error for error in errors if error is not ToolError.PAGE_NOT_FOUND), errors[0] if errors else None
        )
        num_unsummarised = sum(result.num_unsummarised for result in results)
        sources = tuple(source for result in results for source in result.sources)
        return ToolResult(_SEPARATOR.join(parts), error, num_unsummarised, sources)

    async def _guarded(self, item: str, run: Callable[[str], Awaitable[ToolResult]]) -> ToolResult:
        """Run one query, URL or other call; the tool's failures and its time limit become observations."""
        try:
            async with asyncio.timeout(self._settings.tool_timeout_s):
                return await run(item)
        except ToolFailure as error:
            kind = ToolError.PAGE_NOT_FOUND if isinstance(error, PageNotFound) else ToolError.TOOL_FAILED
            return ToolResult(f"Error: {_shown(item)}: {neutralise(one_line(str(error)))}", kind)
        except TimeoutError:
            limit = self._settings.tool_timeout_s
            return ToolResult(f"Error: {_shown(item)}: no result within {limit:g} s", ToolError.TOOL_TIMEOUT)

    async def _run_search(self, query: str, year: int | None) -> ToolResult:
        hits = await self.search(query, year=year)
        shown = format_hits_brief(hits) if self._settings.observations == "brief" else format_hits(query, hits)
        return ToolResult(neutralise(_one_part(shown)))

    async def _run_visit(self, url: str, goal: str) -> ToolResult:
        page, evidence, summary, summarised = await self.visit(url, goal)
        if self._settings.observations == "brief":
            shown = format_report_brief(evidence, summary, keep_short=not summarised)
        else:
            shown = format_report(url, goal, evidence, summary)
        sources = (Source(page.url, page.title),)
        return ToolResult(neutralise(_one_part(shown)), None, int(not summarised), sources)

    async def _run_extra(self, call: ExtraCall) -> ToolResult:
        return ToolResult(neutralise(_one_part(await self.extra[call.name].call(call.arguments))))

    async def _summarise(self, page: Page, goal: str) -> PageReport:
        most, ranker = self._settings.max_page_chars, self._ranker
        if len(page.text) <= most:
            text = page.text
        else:  # of a page of 500 the choice takes a tenth of a second, by meaning several
            text = await asyncio.to_thread(choose_passages, page.text, goal, max_chars=most, ranker=ranker)
        prompt = fill_prompt("summariser", goal=goal, url=one_line(page.url), title=one_line(page.title), text=text)
        return await ask_json(self._summariser, prompt, PageReport, sampling=Sampling(), max_reasks=_MAX_REASKS)


def format_hits(query: str, hits: Sequence[SearchHit]) -> str:
    """The observation of one query, in the shape of the release."""
    noun = "result" if len(hits) == 1 else "results"
    entries = []
    for number, hit in enumerate(hits, 1):
        entry = f"{number}. [{one_line(hit.title)}]({one_line(hit.url)})"
        if hit.published is not None:
            entry += f"\nDate: {hit.published.isoformat()}"
        if snippet := _snippet_line(hit.snippet):
            entry += f"\n{snippet}"
        entries.append(entry)
    head = f'A search for "{one_line(query)}" found {len(hits)} {noun}:\n\n## Web Results\n'
    return head + "\n\n".join(entries)


def format_report(url: str, goal: str, evidence: str, summary: str) -> str:
    """The observation of one visited page, in the shape of the release."""
    head = f'What {one_line(url)} says about the goal "{one_line(goal)}":'
    return f"{head}\n\nEvidence in page:\n{_quoted(evidence)}\n\nSummary:\n{_quoted(one_line(summary))}"


def format_hits_brief(hits: Sequence[SearchHit]) -> str:
    """The observation of one query for a small context: what the model itself wrote, and dates, are left out."""
    lines = [
        line
        for number, hit in enumerate(hits, 1)
        for line in (f"{number}. [{one_line(hit.title)}]({one_line(hit.url)})", _snippet_line(hit.snippet))
        if line
    ]
    return "\n".join(["Results:", *(lines or ["none"])])


def format_report_brief(evidence: str, summary: str, *, keep_short: bool = False) -> str:
    """The observation of one visited page for a small context.

    Args:
        keep_short: give evidence of one or two lines too, of which the summary alone is given otherwise: it says the same.
    """
    told = _quoted(evidence)
    if len(told.splitlines()) <= _MAX_SUMMED_UP_LINES and not keep_short:
        told = ""
    return (f"Evidence:\n{told}\n" if told else "") + f"Summary: {one_line(summary)}"


def _shown(item: str) -> str:
    """A query, URL or tool's name as an error names it."""
    return neutralise(one_line(item)[:200])


def _one_part(observation: str) -> str:
    """The observation without lines of a page, a snippet or a summary that look like the one between two observations."""
    return _SEPARATOR_LINE.sub("======", observation) if "=======" in observation else observation


def _quoted(text: str) -> str:
    """Evidence or a summary in which no line looks like the heading of a part of an observation."""
    text = text.strip()
    return _HEADING.sub("> ", text) if any(word in text for word in _HEADING_WORDS) else text


def _snippet_line(snippet: str) -> str:
    """A snippet on one line, which looks neither like a heading nor like a further result or its date."""
    line = one_line(snippet)
    return f"> {line}" if _LOOKS_OURS.match(line) else line


def render_schemas(schemas: Sequence[dict[str, JsonValue]]) -> str:
    """The tools for the system prompt, one JSON object a line."""
    return "\n".join(json.dumps(schema, ensure_ascii=False) for schema in schemas)
