"""Cuts snippets and evidence down to what a small context has room for. Pure.

The paper shows both at full length; the cuts are settings of ours (`agent.max_snippet_chars`, `agent.max_evidence_chars`).
What was left out is marked by `…`, so that nobody takes a part for the whole.
"""

import re
from collections.abc import Sequence

from webdancer.agent.passages import terms

CUT_MARK = "…"
_CLAUSE_ENDS = "。，、；：！？"
_FULL_WIDTH_ENDS = ("。", "！", "？")
_MIN_KEPT = 0.75
"""Share of the room that a cut at a word or a clause must use."""
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])(?<!\b[^\W\d_a-z]\.)(?:\s+|(?<=[。！？]))")
"""Between two sentences. The full stop of an initial ends none."""


def cut_snippet(snippet: str, query: str, *, title: str, max_chars: int | None) -> str:
    """The snippet where it fits; else its whole sentences that share most words with the query, in their order.

    Where there is a limit, a snippet that opens with its page's heading loses it. Sentences that share no word with the query
    are left out. Where even the best one does not fit, it is cut behind a word and marked.
    """
    if max_chars is None:
        return snippet
    snippet = _without_heading(snippet, title)
    if len(snippet) <= max_chars:
        return snippet
    sentences = [sentence for sentence in _SENTENCE_END.split(snippet) if sentence]
    wanted = set(terms(query))
    shared = [len(wanted.intersection(terms(sentence))) for sentence in sentences]
    order = sorted(range(len(sentences)), key=lambda i: (-shared[i], i))
    if len(sentences[order[0]]) > max_chars:
        return _cut_at_word(sentences[order[0]], max_chars)
    chosen = [order[0]]
    room = max_chars - len(sentences[order[0]])
    for i in order[1:]:
        if shared[i] and len(sentences[i]) + 1 <= room:
            chosen.append(i)
            room -= len(sentences[i]) + 1
    return _joined([sentences[i] for i in sorted(chosen)])


def _without_heading(snippet: str, title: str) -> str:
    """The snippet without the title that it opens with, unless this opens a sentence ("Velm is a city")."""
    rest = snippet.removeprefix(title)
    is_heading = rest != snippet and (
        not rest or (rest[0] == " " and (rest[1:2].isupper() or rest[1:].startswith(title)))
    )
    return rest.lstrip() if is_heading else snippet


def cut_evidence(evidence: str, *, max_chars: int | None) -> str:
    """The evidence where it fits; else its first whole lines and a line `…`, together at most `max_chars` characters.

    A first line that is too long alone is cut behind a word.
    """
    evidence = evidence.strip()
    if max_chars is None or len(evidence) <= max_chars:
        return evidence
    end = evidence.rfind("\n", 0, max_chars - len(CUT_MARK))
    if end < 0:
        return _cut_at_word(evidence.split("\n", 1)[0], max_chars)
    return f"{evidence[:end]}\n{CUT_MARK}"


def _cut_at_word(text: str, max_chars: int) -> str:
    """The first words of a text that is too long, and the mark; a word that is too long alone is cut as well.

    Chinese is cut behind a mark of punctuation where that leaves most of the room used, else behind a character.
    """
    room = max_chars - len(f" {CUT_MARK}")
    end = text.rfind(" ", 0, room + 1)
    if end < room * _MIN_KEPT:  # a script without spaces, or one very long word
        end = max(text.rfind(mark, 0, room) + 1 for mark in _CLAUSE_ENDS)
    return f"{text[: end if end >= room * _MIN_KEPT else room].rstrip()} {CUT_MARK}"


def _joined(sentences: Sequence[str]) -> str:
    """Sentences in one line; behind Chinese or Japanese ones stands no space."""
    joined = sentences[0]
    for sentence in sentences[1:]:
        joined += sentence if joined.endswith(_FULL_WIDTH_ENDS) else f" {sentence}"
    return joined
