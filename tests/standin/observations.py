"""What an episode's tools brought, read from the messages."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from webdancer.llm.protocol import Message

from .prompt import FORCED
from .reading import read_title

_HIT = re.compile(r"^\d+\. \[(.*)\]\((\S+)\)$")
_RESPONSE = re.compile(r"<tool_response>\n(.*)\n</tool_response>", re.DOTALL)
_CALL = re.compile(r"<tool_call>\s*(\{.*\})\s*</tool_call>", re.DOTALL)
_EVIDENCE = re.compile(r"Evidence(?: in page)?:\n(.*?)\n*(?:\nSummary:|^Summary:|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result."""

    title: str
    url: str
    snippet: str

    @property
    def name(self) -> str:
        """The name that its title opens with."""
        return read_title(self.title)[0]


@dataclass(slots=True)
class Episode:
    """The question, and what has been done for it so far."""

    question: str = ""
    hits: list[Hit] = field(default_factory=list)
    """All search results, in their order."""
    queries: list[str] = field(default_factory=list)
    reports: dict[tuple[str, str], str] = field(default_factory=dict)
    """(URL, goal) of each visit → the evidence that it brought."""
    num_turns: int = 0
    is_forced: bool = False


def read_episode(messages: Sequence[Message]) -> Episode:
    """The episode that the messages tell; calls that broke the format brought nothing."""
    episode = Episode()
    call: dict[str, object] = {}
    for message in messages:
        if message.role == "assistant":
            episode.num_turns += 1
            call = _call_in(message.content)
        elif message.role == "user":
            if FORCED in message.content:
                episode.is_forced = True
            if response := _RESPONSE.search(message.content):
                _take(episode, call, response[1])
            elif not episode.question:
                episode.question = message.content.split("\n\n", 1)[0].strip()
    return episode


def read_hits(text: str) -> list[Hit]:
    """The search results that an observation shows."""
    hits: list[Hit] = []
    for line in text.split("\n"):
        if match := _HIT.match(line):
            hits.append(Hit(match[1], match[2], ""))
        elif hits and line.strip() and not line.startswith(("Date: ", "## ", "A search for", "=======")):
            last = hits[-1]
            hits[-1] = Hit(last.title, last.url, f"{last.snippet}\n{line}".strip())
    return hits


def _call_in(content: str) -> dict[str, object]:
    match = _CALL.search(content)
    try:
        value = json.loads(match[1]) if match else {}
    except ValueError:
        value = {}
    return value if isinstance(value, dict) else {}


def _take(episode: Episode, call: dict[str, object], observation: str) -> None:
    """Add what a call brought; an error brings nothing but the knowledge that it was tried."""
    arguments = call.get("arguments")
    if not isinstance(arguments, dict):
        return
    if call.get("name") == "search":
        queries = arguments.get("query")
        episode.queries += queries if isinstance(queries, list) else [str(queries)]
        episode.hits += read_hits(observation)
    elif call.get("name") == "visit":
        match = _EVIDENCE.search(observation)
        episode.reports[str(arguments.get("url")), str(arguments.get("goal"))] = match[1].strip() if match else ""
