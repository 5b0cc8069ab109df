"""What an episode's messages hold: the question, the calls that were made, and what they brought.

The searcher keeps no state between turns. Everything is read again from the messages, which also hold the answers of
other models' tools; earlier thoughts are not needed, since a long-CoT teacher does not see its own. Observations are read in
both shapes: full ones tell their query, or their URL and goal; of brief ones, the n-th part answers the n-th query or URL of
the call.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from webdancer.llm.protocol import Message
from webdancer.scribe.knowledge import Knowledge
from webdancer.scribe.logical import Count
from webdancer.scribe.question import parse_goal
from webdancer.scribe.reader import Reading, read_page
from webdancer.scribe.summariser import SILENT

_SEPARATOR = "\n=======\n"
_SEARCH_HEAD = re.compile(r'A (?:Google )?search for "(.*)" found (\d+) results?:')
_VISIT_HEAD = re.compile(r'What (\S+) says about the goal "(.*)":')
_HIT = re.compile(r"^\d+\. \[(.*)\]\((\S+)\)$")
_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
_COUNTED = re.compile(r"has (\d+) entr(?:y|ies)(?:, (\d+) of them\b)?")
_CUT = "…"
_RESPONSE = re.compile(r"<tool_response>\n?(.*?)\n?</tool_response>(.*)", re.DOTALL)


class Hit(NamedTuple):
    """One search result."""

    title: str
    url: str
    snippet: str


class Results(NamedTuple):
    """What one query brought."""

    query: str
    hits: tuple[Hit, ...]


class Report(NamedTuple):
    """What one visited page was reported to say."""

    url: str
    goal: str
    evidence: str
    summary: str


class Turn(NamedTuple):
    """One earlier turn: the call as far as it could be read, and what it brought."""

    tool: str
    queries: tuple[str, ...]
    urls: tuple[str, ...]
    goal: str
    results: tuple[Results, ...]
    reports: tuple[Report, ...]
    error: str
    """The first `Error: …` line, or empty."""


class Episode(NamedTuple):
    """An episode as its messages show it."""

    question: str
    turns: tuple[Turn, ...]
    is_forced: bool
    """No more tool calls are possible: an answer is demanded."""

    @property
    def titles(self) -> dict[str, str]:
        """URL → title of all search results so far."""
        return {hit.url: hit.title for turn in self.turns for results in turn.results for hit in results.hits}


def read_episode(messages: Sequence[Message]) -> Episode:
    """The episode so far."""
    users = [m.content for m in messages if m.role == "user"]
    turns: list[Turn] = []
    is_forced = False
    action: str | None = None
    for message in messages:
        if message.role == "assistant":
            action = message.content
        elif message.role == "user" and action is not None:
            match = _RESPONSE.search(message.content)
            observation, rest = (match[1], match[2].strip()) if match else ("", message.content)
            turns.append(read_turn(action, observation))
            is_forced = bool(rest)
            action = None
    return Episode(users[0].strip() if users else "", tuple(turns), is_forced)


@lru_cache(maxsize=4096)
def read_turn(action: str, observation: str) -> Turn:
    """A turn's call and its observation. Never raises: what cannot be read is left empty."""
    tool, queries, urls, goal = _read_call(action)
    results, reports, error = [], [], ""
    for number, part in enumerate(observation.split(_SEPARATOR)):
        part = part.strip()
        if part.startswith("Error:"):
            error = error or part
        elif head := _SEARCH_HEAD.match(part):
            results.append(Results(head[1], _read_hits(part)))
        elif head := _VISIT_HEAD.match(part):
            evidence, _, summary = part[head.end() :].partition("\n\nSummary:\n")
            _, _, evidence = evidence.partition("Evidence in page:\n")
            reports.append(Report(head[1], head[2], evidence.strip(), summary.strip()))
        elif part.startswith("Results:") and number < len(queries):
            results.append(Results(queries[number], _read_hits(part)))
        elif part.startswith(("Evidence:", "Summary:")) and number < len(urls):
            reports.append(_read_brief_report(part, urls[number], goal))
    return Turn(tool, queries, urls, goal, tuple(results), tuple(reports), error)


def _read_brief_report(part: str, url: str, goal: str) -> Report:
    """The report of a page in the brief shape; the summary is its last line, and stands for short evidence."""
    evidence, _, summary = f"\n{part}".rpartition("\nSummary:")
    evidence, summary = evidence.strip().removeprefix("Evidence:").strip(), summary.strip()
    return Report(url, goal, evidence or ("" if summary.endswith(SILENT) else summary), summary)


def _read_call(action: str) -> tuple[str, tuple[str, ...], tuple[str, ...], str]:
    match = _CALL.search(action)
    try:
        call = json.loads(match[1]) if match else {}
        arguments = call.get("arguments", {})
        return (
            str(call.get("name", "")),
            _texts(arguments.get("query", ())),
            _texts(arguments.get("url", arguments.get("url_link", ()))),
            str(arguments.get("goal", "")).strip(),
        )
    except (ValueError, AttributeError):  # a call that the format does not allow: its observation says so
        return "", (), (), ""


def _texts(value: object) -> tuple[str, ...]:
    """One text or several, as the tools take them: stripped, each once."""
    items = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    return tuple(dict.fromkeys(str(item).strip() for item in items))


def _read_hits(part: str) -> tuple[Hit, ...]:
    hits: list[Hit] = []
    for line in part.splitlines():
        match = _HIT.match(line)
        if match:
            hits.append(Hit(match[1], match[2], ""))
        elif hits and line and not line.startswith("Date: "):
            hits[-1] = hits[-1]._replace(snippet=f"{hits[-1].snippet} {line}".strip())
    return tuple(hits)


def title_of(url: str) -> str:
    """A page's title as its address spells it, for pages that no search showed."""
    return unquote(urlsplit(url).path.rstrip("/").rsplit("/", 1)[-1]).replace("_", " ")


def gather_knowledge(episode: Episode) -> Knowledge:
    """All that the visited pages were reported to say. Lists count in both directions."""
    knowledge = Knowledge(use_lists_backwards=True)
    titles = episode.titles
    for turn in episode.turns:
        for report in turn.reports:
            title = titles.get(report.url) or title_of(report.url)
            if report.evidence:
                reading = read_page(title, f"{report.summary}\n{report.evidence}")
                goal = parse_goal(report.goal)
                whole = goal.items.kind if isinstance(goal, Count) else None
                knowledge.add(_without_parts(reading, whole), report.url)
                if isinstance(goal, Count) and report.evidence.endswith(_CUT):
                    _note_count(goal, report, knowledge)
    return knowledge


def _note_count(goal: Count, report: Report, knowledge: Knowledge) -> None:
    """Take the number of a list's members from the summary, where the evidence shows only the list's beginning."""
    if told := _COUNTED.search(report.summary):
        knowledge.note_count(goal, int(told[2] or told[1]), report.url)


def _without_parts(reading: Reading, whole: str | None) -> Reading:
    """The reading with every list marked as a part but for the one that was asked for as a whole."""
    lists = tuple(item._replace(complete=item.complete and item.kind == whole) for item in reading.lists)
    return reading._replace(lists=lists)


def read_snippets(results: str) -> tuple[Knowledge, tuple[Hit, ...]]:
    """What the snippets of a search's results say."""
    knowledge = Knowledge(use_lists_backwards=True)
    hits = _read_hits(results)
    for hit in hits:
        knowledge.add(_without_parts(read_page(hit.title, hit.snippet), None), hit.url)
    return knowledge, hits
