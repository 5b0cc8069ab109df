"""How text becomes index terms, the same for pages and queries.

Latin text is split at what is not alphanumeric, lowercased and stripped of accents by tantivy. Chinese, Japanese and Korean
have no spaces between words (or particles glued to them), so a run of them is handed over as its overlapping pairs of
characters, and its last character alone:

    北京大学 在  →  北京 京大 大学 学 在

A query of two or more characters finds every text that has them side by side. A single character is the beginning of one of
these terms wherever it stands, so it is looked up as a prefix.
"""

import re
import unicodedata
from typing import NamedTuple

import tantivy

ANALYZER = "webdancer"
"""Name under which the analyser is registered with an index."""
_MAX_TERM_BYTES = 64
_MAX_QUERY_WORDS = 64
_CJK = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f"
    "\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_CJK_RUN = re.compile(f"[{_CJK}]+")
_WORD = re.compile(r"[^\W_]+")


class QueryTerms(NamedTuple):
    """A query's terms."""

    words: tuple[str, ...]
    """Plain words, free of operators and punctuation; pairs of CJK characters."""
    prefixes: tuple[str, ...]
    """CJK characters that stand alone."""
    needles: tuple[str, ...]
    """What to look for in a page's text for a snippet: lowercased words, whole CJK runs and their pairs."""


def analyzer() -> tantivy.TextAnalyzer:
    """Splits prepared text into terms: alphanumeric runs, lowercased, without accents, of at most 64 bytes."""
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(_MAX_TERM_BYTES))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
        .build()
    )


_ANALYZER = analyzer()


def prepare(text: str) -> str:
    """Text as it is handed to the analyser: compatibility forms unified, CJK runs as pairs."""
    if text.isascii():
        return text
    return _CJK_RUN.sub(_pairs, unicodedata.normalize("NFKC", text))


def _pairs(run: re.Match[str]) -> str:
    chars = run[0]
    return f" {' '.join(chars[i : i + 2] for i in range(len(chars)))} "


def query_terms(query: str) -> QueryTerms:
    """The terms of any string a user or model may type; operators and punctuation mean nothing."""
    words: dict[str, None] = {}
    prefixes: dict[str, None] = {}
    needles: dict[str, None] = {}
    for word in _WORD.findall(unicodedata.normalize("NFKC", query).lower())[:_MAX_QUERY_WORDS]:
        position = 0
        for run in _CJK_RUN.finditer(word):
            _add(word[position : run.start()], words, needles)
            position = run.end()
            chars = run[0]
            needles[chars] = None
            if len(chars) == 1:
                prefixes[chars] = None
            for index in range(len(chars) - 1):
                words[chars[index : index + 2]] = None
                needles[chars[index : index + 2]] = None
        _add(word[position:], words, needles)
    return QueryTerms(tuple(words), tuple(prefixes), tuple(needles))


def _add(word: str, words: dict[str, None], needles: dict[str, None]) -> None:
    for term in [word] if word.isascii() else _ANALYZER.analyze(word):
        if term:
            words[term] = None
            needles[term] = None
