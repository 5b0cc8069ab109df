"""Finds a prompt's role and data. Only the `Role:` line and the tag sections count; all other wording is for real models."""

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from random import Random

from webdancer.llm.protocol import Message

_ROLE = re.compile(r"^Role: *(\w+)\s*$", re.MULTILINE)
_DATA = re.compile(r"^<\w+>$", re.MULTILINE)
_DATA_END = re.compile(r"^</\w+>$", re.MULTILINE)
_PAGE = re.compile(r"^<page>\nurl: *([^\n]*)\ntitle: *([^\n]*)\n(.*?)\n?</page>$", re.MULTILINE | re.DOTALL)


def find_role(messages: Sequence[Message]) -> tuple[str, str]:
    """The role that a prompt names before its data, and the prompt; both empty if there is none.

    Data, and what an episode's tools brought, was written by others: a role in it means nothing.
    """
    for message in messages:
        if message.role == "assistant":
            break
        match = _ROLE.search(_DATA.split(message.content, maxsplit=1)[0])
        if match:
            return match[1], message.content
    return "", ""


def section(prompt: str, tag: str) -> str:
    """The text of the section `<tag>…</tag>` whose tags stand on lines of their own; empty if there is none."""
    match = re.search(rf"^<{tag}>$\n?(.*?)\n?^</{tag}>$", prompt, re.MULTILINE | re.DOTALL)
    return match[1].strip() if match else ""


def pages(prompt: str) -> list[tuple[str, str, str]]:
    """The prompt's pages as (url, title, text)."""
    return [(m[1].strip(), m[2].strip(), m[3].strip()) for m in _PAGE.finditer(prompt)]


def data_of(prompt: str) -> str:
    """The prompt's sections: what a draw may depend on, so that another wording of a role changes none."""
    first, ends = _DATA.search(prompt), list(_DATA_END.finditer(prompt))
    return prompt[first.start() : ends[-1].end()] if first and ends else prompt


@lru_cache(maxsize=8)
def _wording(role: str) -> str:
    path = resources.files("webdancer.scribe").joinpath("wording", f"{role}.md")
    return path.read_text(encoding="utf-8").strip()


def draw_text(role: str, prompt: str, num_questions: int = 0) -> str:
    """What a role's draws follow from: the prompt's data, in the wording that it had when the published figures were made.

    Another wording of a prompt so changes no draw, and the questions of a seed are those of `docs/results.md`.
    """
    wording = _wording(role).replace("{{num_questions}}", str(num_questions))
    return wording.replace("{{data}}", data_of(prompt))


def find_number(prompt: str) -> int | None:
    """How many questions the instruction asks for, if it says so in digits."""
    match = re.search(r"(?:up to|at most) (\d+) question|(\d+) questions", prompt)
    return int(match[1] or match[2]) if match else None


@lru_cache(maxsize=512)
def _digest(*parts: object) -> int:
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "big")


def seeded(*parts: object) -> Random:
    """A random generator that depends on the parts alone, the same on every machine."""
    return Random(_digest(*parts))
