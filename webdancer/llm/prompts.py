"""Loads and fills the prompts in `llm/prompts/*.md`.

A prompt file is the whole text of a role. Its first line is `Role: NAME`; data stands in sections between tags
(`<question>…</question>`) where a `{{field}}` is filled in. Text that is filled in can neither close such a section nor
open another, nor hold a control token: both are broken up by a zero-width mark, unless the value is a `Section` built here.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

from webdancer.errors import PromptError
from webdancer.llm.control_tokens import TokenStarts

_FIELD = re.compile(r"\{\{(\w+)\}\}")
_READABLE = TokenStarts(r"[A-Za-z_]|[\s/]*/\s*[A-Za-z_]|\s+[A-Za-z_]+\s*>|[\s/]*\Z")
"""Before what a model may take for a tag (also `< / page >`, and one that goes on in the next field), or a server for a control
token."""


class Section(str):
    """Text whose tags are ours and may stand in a prompt as they are."""

    __slots__ = ()


@cache
def load_prompt(name: str) -> str:
    """Text of `llm/prompts/NAME.md`.

    Raises:
        PromptError: there is no such prompt.
    """
    path = resources.files("webdancer.llm").joinpath("prompts", f"{name}.md")
    if not path.is_file():
        raise PromptError(f"no prompt named {name!r} in webdancer/llm/prompts")
    return path.read_text(encoding="utf-8").strip()


def fill_prompt(name: str, **fields: str) -> str:
    """The prompt `NAME` with its `{{fields}}` filled in.

    Raises:
        PromptError: a field is missing or unknown, or there is no such prompt.
    """
    parts = _split_prompt(name)
    wanted = set(parts[1::2])
    if wanted != set(fields):
        raise PromptError(f"prompt {name!r}: got fields {sorted(fields)}, expected {sorted(wanted)}")
    safe = {key: value if isinstance(value, Section) else quote_data(value) for key, value in fields.items()}
    return "".join(safe[part] if i % 2 else part for i, part in enumerate(parts))


@cache
def _split_prompt(name: str) -> list[str]:
    """The prompt's text between its fields, and the fields' names, in turn."""
    return _FIELD.split(load_prompt(name))


def quote_data(text: str) -> str:
    """Text from outside made safe for a section: a zero-width space behind the first character of tags and control tokens."""
    return _READABLE.part(text)


def one_line(text: str) -> str:
    """The text on one line, so that no further line can be forged: behind `url:` or `title:`, in an observation's own lines."""
    if text.isprintable() and "  " not in text and text == text.strip():  # as nearly always, and told twice as fast
        return text
    return " ".join(text.split())


def format_pages(pages: Iterable[tuple[str, str, str]]) -> Section:
    """Pages given as (url, title, text) as one `<page>` section each, with `url:` and `title:` lines before the text."""
    return Section(
        "\n".join(
            f"<page>\nurl: {quote_data(one_line(url))}\ntitle: {quote_data(one_line(title))}\n\n{quote_data(text)}\n</page>"
            for url, title, text in pages
        )
    )
