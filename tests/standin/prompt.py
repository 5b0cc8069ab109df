"""A filled prompt taken apart: its role, its sections, its pages, and whether it is asked again."""

import hashlib
import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from webdancer.llm.protocol import Message

_ROLE = re.compile(r"^Role: *(\w+)\s*$", re.MULTILINE)
_DATA = re.compile(r"^<\w+>$", re.MULTILINE)
_PAGE = re.compile(r"^<page>\nurl: *([^\n]*)\ntitle: *([^\n]*)\n(.*?)\n?</page>$", re.MULTILINE | re.DOTALL)
FORCED = "No more tool calls are possible"
_REASKED = "Your reply could not be used"


class PromptPage(NamedTuple):
    """A page as a prompt shows it."""

    url: str
    title: str
    text: str


def role_of(messages: Sequence[Message]) -> tuple[str, str]:
    """The role that the messages name before any data, and the prompt that names it; `agent` where none does."""
    for message in messages:
        if message.role != "assistant" and (match := _ROLE.search(_DATA.split(message.content, maxsplit=1)[0])):
            return match[1], message.content
    return "agent", messages[0].content if messages else ""


def is_reask(messages: Sequence[Message]) -> bool:
    """Whether an earlier reply to the same prompt was sent back as unusable."""
    return messages[-1].role == "user" and messages[-1].content.startswith(_REASKED)


def call_label(messages: Sequence[Message]) -> str:
    """What a call is counted as: its role, `ROLE_reask`, or `agent_forced` for a demanded answer."""
    role, _ = role_of(messages)
    if is_reask(messages):
        return f"{role}_reask"
    return f"{role}_forced" if role == "agent" and FORCED in messages[-1].content else role


def section(prompt: str, tag: str) -> str:
    """The text between `<tag>` and `</tag>` on lines of their own; empty where there is none."""
    match = re.search(rf"^<{tag}>$\n?(.*?)\n?^</{tag}>$", prompt, re.MULTILINE | re.DOTALL)
    return match[1].strip() if match else ""


def pages(prompt: str) -> list[PromptPage]:
    """The prompt's pages in their order."""
    return [PromptPage(m[1].strip(), m[2].strip(), m[3].strip()) for m in _PAGE.finditer(prompt)]


def rng_of(*parts: object) -> random.Random:
    """A random generator that follows from the parts alone, the same on every machine."""
    return random.Random(hashlib.sha256(repr(parts).encode()).digest())
