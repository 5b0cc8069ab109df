"""The full-text index of a snapshot: tantivy over title and text, with the year of publication.

The index stores nothing but postings: a hit is the number of its row in the page store. BM25; words of the title count
more.
"""

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import tantivy

from webdancer.web.tokens import ANALYZER, analyzer, prepare, query_terms

_FIELDS = {"title": 2.0, "text": 1.0}
"""Fields that are searched, and how much their words count."""
_HEAP_BYTES = 512_000_000
_YEARS = range(date.min.year, date.max.year + 1)
_MAX_SHARE = 0.7
"""A word that stands in more than this share of all pages is left out of a query that has others …"""
_MIN_DOCS = 1000
"""… if there are so many pages that the share means something."""
_COMMON = 1000.0
"""A word in one page of so many weighs half as much in a snippet as a word in none."""


class Found(NamedTuple):
    """What a query found."""

    ids: list[int]
    """Rows in the page store, best first."""
    weights: dict[str, float]
    """What to look for in the text → how telling it is (rarer is more)."""


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("title", tokenizer_name=ANALYZER)
    builder.add_text_field("text", tokenizer_name=ANALYZER)
    builder.add_unsigned_field("row", fast=True)
    builder.add_unsigned_field("year", indexed=True)
    return builder.build()


def build_index(path: Path, rows: Iterable[tuple[int, str, str, int | None]]) -> int:
    """Build an index of (row, title, text, year) in the order given. Returns how many rows it holds."""
    path.mkdir(parents=True)
    index = tantivy.Index(_schema(), path=str(path))
    index.register_tokenizer(ANALYZER, analyzer())
    writer = index.writer(heap_size=_HEAP_BYTES, num_threads=1)
    num_rows = 0
    for row, title, text, year in rows:
        document = tantivy.Document()
        document.add_unsigned("row", row)
        document.add_text("title", prepare(title))
        document.add_text("text", prepare(text))
        if year is not None:
            document.add_unsigned("year", year)
        writer.add_document(document)
        num_rows += 1
    writer.commit()
    writer.wait_merging_threads()
    return num_rows


class SearchIndex:
    """An index, open for reading; safe to share between threads.

    Raises:
        ValueError: there is no index in the folder.
    """

    def __init__(self, path: Path) -> None:
        self._index = tantivy.Index.open(str(path))
        self._index.register_tokenizer(ANALYZER, analyzer())
        self._searcher = self._index.searcher()
        self._schema = self._index.schema

    def search(self, query: str, *, num_results: int, year: int | None) -> Found:
        """Rows for a query, best first, ties in the order in which they were indexed."""
        terms = query_terms(query)
        if not (terms.words or terms.prefixes) or num_results < 1 or (year is not None and year not in _YEARS):
            return Found([], {})
        shares = {word: self._share("text", word) for word in terms.words}
        parts = []
        for field, boost in _FIELDS.items():
            words = self._telling(field, shares)
            if words:
                parsed, _ = self._index.parse_query_lenient(" ".join(words), [field], field_boosts={field: boost})
                parts.append((tantivy.Occur.Should, parsed))
        for char in terms.prefixes:
            for field in _FIELDS:
                parts.append((tantivy.Occur.Should, tantivy.Query.regex_query(self._schema, field, f"{char}.?")))
        wanted = tantivy.Query.boolean_query(parts) if len(parts) > 1 else parts[0][1]
        if year is not None:
            in_year = tantivy.Query.term_query(self._schema, "year", year)
            wanted = tantivy.Query.boolean_query(
                [(tantivy.Occur.Must, wanted), (tantivy.Occur.Must, tantivy.Query.const_score_query(in_year, 0.0))]
            )
        weights = {needle: 1.0 / (1.0 + _COMMON * shares.get(needle, 0.0)) for needle in terms.needles}
        return Found(self._best(wanted, num_results), weights)

    def _share(self, field: str, word: str) -> float:
        return self._searcher.doc_freq(field, word) / max(1, self._searcher.num_docs)

    def _telling(self, field: str, shares: dict[str, float]) -> list[str]:
        """The words that are looked for in a field: not those of most pages' text, where rarer ones are asked for too.

        They would cost most of the time, and their weight in BM25 is small. In titles they are rare.
        """
        if field == "title" or self._searcher.num_docs < _MIN_DOCS:
            return list(shares)
        return [word for word, share in shares.items() if share <= _MAX_SHARE] or list(shares)

    def _best(self, query: tantivy.Query, num_results: int) -> list[int]:
        limit = num_results + (self._searcher.num_segments > 1)  # one more shows whether a tie crosses the border
        while True:
            hits = self._searcher.search(query, limit=limit, count=False).hits
            tied = len(hits) == limit and hits[-1][0] == hits[num_results - 1][0]
            if not tied or self._searcher.num_segments == 1:
                break
            limit *= 2  # segments stand in no fixed order: take all that tie, then order them
        rows = [int(row or 0) for row in self._searcher.fast_field_values("row", [address for _, address in hits])]
        if self._searcher.num_segments > 1:
            order = sorted(range(len(hits)), key=lambda i: (-hits[i][0], rows[i]))
            rows = [rows[i] for i in order]
        return rows[:num_results]
