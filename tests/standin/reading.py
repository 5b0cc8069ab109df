"""Finds facts in the text of a page of Python's documentation, or in lines copied from one.

Everything works line by line, so that what is found on a page is found again in the lines that a summariser copied of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .questions import Noun, Side

_TITLE = re.compile(r"([A-Za-z_][\w.]*|\d\w*[A-Za-z]\w*)(?: [—–-]|:) (.+)")
_DEFINITION = re.compile(
    r"(?:(class|exception|abstractmethod|classmethod|staticmethod|async) )?([A-Za-z_][\w.]*)(\(.*\))?"
)
_ENTRY = re.compile(r"- ([A-Za-z_][\w.]*)(?: [—–]|:) \S")
_IN_ENTRY = re.compile(r"(?<![\w.])([a-z_][\w.]*\w)(?: and ([a-z_][\w.]*\w))? modules?\b")
_NO_NAME = frozenset(
    ("a", "an", "the", "this", "that", "of", "in", "new", "and", "each", "all", "other", "extension", "python")
)
_DEFAULT = re.compile(r"[\[,( ]([A-Za-z_]\w*)=('[^']+'|\"[^\"]+\"|-?\d[\d.]*)(?=[\]),])")
_IDENTIFIER = re.compile(r"[A-Za-z_](?:[\w.]*\w)?")
_SMALL = frozenset(("of", "and", "the", "in", "for", "to", "with", "a", "on"))
_SELF_REFERRING = ("page", "pages", "text", "document", "documents", "article")
"""Words that a question must not be about."""
_NUM_WORDS = (7, 6, 5, 4)
"""Words beside a name that are tried, the most telling first."""


class Found(NamedTuple):
    """A fact: what it is, and the lines that state it."""

    answer: str
    lines: tuple[str, ...]


class Mention(NamedTuple):
    """Words that stand right beside a name and nowhere else on the page."""

    side: Side
    words: str


class Definition(NamedTuple):
    """A line that introduces a name: `class queue.Queue(maxsize=0)`."""

    kind: str
    """`class`, `exception`, `function`, `method` or `constant`."""
    name: str
    """Without the module: `Queue`, or `Queue.put`."""
    signature: str
    at: int


@dataclass(frozen=True)
class Reading:
    """A page's name and its lines; code is left out."""

    name: str
    noun: Noun
    blurb: str
    lines: tuple[str, ...]

    @classmethod
    def of(cls, title: str, text: str) -> "Reading":
        """The reading of a page, or of an excerpt of one whose title is known."""
        name, noun, blurb = read_title(title)
        lines = tuple(
            " ".join(line.split()) for line in text.split("\n") if line.strip() and not line.startswith("    ")
        )
        return cls(name, noun, blurb, lines)

    @cached_property
    def definitions(self) -> tuple[Definition, ...]:
        """The lines that define a name of this module, or a method of one of its classes."""
        return tuple(self._definitions())

    def _definitions(self) -> Iterator[Definition]:
        for at, line in enumerate(self.lines):
            match = _DEFINITION.fullmatch(line)
            if match is None or self.noun != "module":
                continue
            kind, name, signature = match[1], match[2], match[3] or ""
            if name.startswith(f"{self.name}."):
                name = name.removeprefix(f"{self.name}.")
                if "." not in name:
                    kind = kind if kind in ("class", "exception") else "function" if signature else "constant"
                    yield Definition(kind, name, signature, at)
                    continue
            if "." in name and signature:
                yield Definition("method", name, signature, at)

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Headings below the title, each with the lines up to the next heading."""
        heading, lines = "", list[str]()
        for line in self.lines:
            if line.startswith("#"):
                if heading:
                    yield heading, lines
                heading, lines = line.lstrip("# ").strip() if line.startswith("##") else "", []
            else:
                lines.append(line)
        if heading:
            yield heading, lines

    def entries(self) -> dict[str, str]:
        """The modules that the page's lists have as entries, with the line of each."""
        return {match[1]: line for line in self.lines if (match := _ENTRY.match(line))}

    def listed(self) -> dict[str, str]:
        """The modules that the page's lists name, as entries or within them, each with the first line that does."""
        found: dict[str, str] = {}
        for line in self.lines:
            if line.startswith("- "):
                names = [name for match in _IN_ENTRY.finditer(line) for name in match.groups() if name]
                names += _ENTRY.findall(line)
                for name in names:
                    if name not in _NO_NAME:
                        found.setdefault(name, line)
        return found

    def standards(self, noun: str) -> dict[str, str]:
        """The PEPs or RFCs that the page refers to, each with the first line that does."""
        found: dict[str, str] = {}
        for line in self.lines:
            for name in re.findall(rf"\b{noun} \d+", line):
                found.setdefault(name, line)
        return found

    def mentions(self, name: str, noun: Noun) -> list[Mention]:
        """Words beside `name` that tell it from all else on this page, and hold neither its name nor the page's."""
        found: dict[Mention, None] = {}
        for line in self.lines:
            if line.startswith(("#", "- ", "Source code:")) or '"' in line or "<" in line or " | " in line:
                continue  # a heading or an entry has hardly words of its own, the others would end a description early
            for place in _places(line, name, noun) if name in line else ():
                before, after = line[: place[0]].split(), line[place[1] :].split()
                for mention in _beside(before, after):
                    if any(says(mention.words, word) for word in (name, self.name, *_SELF_REFERRING)):
                        continue
                    if self.named_beside(mention, noun) == name:
                        found[mention] = None
                        break
        return list(found)

    def named_beside(self, mention: Mention, noun: Noun) -> str | None:
        """The name that stands beside the words; None where the words do not stand there exactly once."""
        holding = [line for line in self.lines if mention.words in line]
        if len(holding) != 1 or holding[0].count(mention.words) != 1:
            return None
        before, after = holding[0].split(mention.words)
        rest = after if mention.side == "after" else before
        return _first_name(rest, noun) if mention.side == "after" else _last_name(rest, noun)

    def line_with(self, words: str) -> str | None:
        """The first line that holds the words."""
        return next((line for line in self.lines if words in line), None)


def read_title(title: str) -> tuple[str, Noun, str]:
    """The name that a title opens with, whether it is a module's, and the rest."""
    match = _TITLE.fullmatch(title.strip())
    if match and match[1] != "Index":
        return match[1], "module", match[2].strip()
    return title.strip(), "chapter", ""


def says(text: str, name: str) -> bool:
    """Whether `name` stands in `text` as words of its own; case does not count."""
    return re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text, re.IGNORECASE) is not None


def defaults(definition: Definition) -> dict[str, str]:
    """The parameters of a definition whose default is a number or a text, with that default."""
    return {name: value.strip("'\"") for name, value in _DEFAULT.findall(definition.signature)}


def _places(line: str, name: str, noun: Noun) -> list[tuple[int, int]]:
    """Where a line names it, as a name and not as an ordinary word."""
    exact = re.escape(name)
    if noun == "chapter":
        return [match.span() for match in re.finditer(rf"(?<!\w){exact}(?!\w)", line)]
    spans = [m.span(1) for m in re.finditer(rf"(?<![\w.])({exact}) (?:sub)?(?:module|package)s?\b", line)]
    spans += [m.span(1) for m in re.finditer(rf"\b(?:modules?|packages?) ({exact})(?![\w(]|\.\w)", line)]
    if "." in name or "_" in name:
        spans += [m.span() for m in re.finditer(rf"(?<![\w.]){exact}(?![\w(]|\.\w)", line)]
    return list(dict.fromkeys(spans))


def _beside(before: list[str], after: list[str]) -> Iterator[Mention]:
    """Candidates of words beside a name, longest first, those before it first."""
    for num in _NUM_WORDS:
        if len(before) >= num:
            yield Mention("after", " ".join(before[-num:]))
    for num in _NUM_WORDS:
        if len(after) >= num and after[0].isalpha():
            yield Mention("before", " ".join(after[:num]))


def _first_name(text: str, noun: Noun) -> str | None:
    """The name that a text opens with."""
    text = text.lstrip(" (“‘")
    if noun == "module":
        match = _IDENTIFIER.match(text)
        return match[0] if match else None
    taken: list[str] = []
    for word in text.split():
        bare = word.rstrip(".,;:)”")
        if not (bare[:1].isupper() or bare[:1].isdigit() or bare in _SMALL):
            break
        taken.append(bare)
        if bare != word:
            break
    while taken and taken[-1] in _SMALL:
        taken.pop()
    return " ".join(taken) or None


def _last_name(text: str, noun: Noun) -> str | None:
    """The name that a text ends with."""
    text = text.rstrip(" )”’")
    if noun == "module":
        match = re.search(r"([A-Za-z_](?:[\w.]*\w)?)$", text)
        return match[1] if match else None
    taken: list[str] = []
    for word in reversed(text.split()):
        if not (word[:1].isupper() or word in _SMALL) or word[-1] in ".,;:":
            break
        taken.insert(0, word)
    while taken and taken[0] in _SMALL:
        taken.pop(0)
    return " ".join(taken) or None
