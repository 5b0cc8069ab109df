"""Loads and fills the prompts in `llm/prompts/*.md`.

A prompt file is the whole text of a role. Its first line is `Role: NAME`; data stands in sections between tags
(`<question>…</question>`) where a `{{field}}` is filled in. Text that is filled in can neither close such a section nor
open another: `<` before a name is broken up by a zero-width mark, unless the value is a `Section` built here.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

from webdancer.errors import PromptError

_FIELD = re.compile(r"\{\{(\w+)\}\}")


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
    text = load_prompt(name)
    wanted = set(_FIELD.findall(text))
    if wanted != set(fields):
        raise PromptError(f"prompt {name!r}: got fields {sorted(fields)}, expected {sorted(wanted)}")
    safe = {key: value if isinstance(value, Section) else quote_data(value) for key, value in fields.items()}
    return _FIELD.sub(lambda m: safe[m.group(1)], text)


def quote_data(text: str) -> str:
    """Text from outside made safe for a section: a zero-width space parts every `<` from a name or `/` behind it.

    Control tokens of chat models (`<|im_end|>`, DeepSeek's `<｜…｜>`) are parted too: many servers read them in any text.
    """
    return re.sub(r"<(?=/?[A-Za-z_]|[\s/]*[|｜])", "<\u200b", text)


def format_pages(pages: Iterable[tuple[str, str, str]]) -> Section:
    """Pages given as (url, title, text) as one `<page>` section each, with `url:` and `title:` lines before the text."""
    return Section(
        "\n".join(
            f"<page>\nurl: {quote_data(url)}\ntitle: {quote_data(title)}\n\n{quote_data(text)}\n</page>"
            for url, title, text in pages
        )
    )
