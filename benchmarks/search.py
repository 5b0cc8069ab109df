"""Search of a snapshot next to raw tantivy, SQLite FTS5 and bm25s, on the same pages and queries, in one run.

    python benchmarks/search.py [--pages 50000] [--queries 400]

The pages are synthetic: words of a Zipf vocabulary, lengths spread about a median of 150 words. Every engine has title and
text, joins the words of a query by OR, gives ten hits with title, URL, date and a snippet (bm25s has none: it gives the
text), and each query is put to all of them in turn, so that other load on the machine falls on all alike. Webdancer
leaves out of a query the words that stand in most pages; how much its hits differ from tantivy's is printed too. Prints a
table and writes benchmarks/out/search.json.
"""

import argparse
import hashlib
import json
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import bm25s
import tantivy

from webdancer.records import Page
from webdancer.web.snapshot import Snapshot, SnapshotWriter

OUT = Path(__file__).parent / "out" / "search.json"
NUM_WORDS = 80_000
NUM_RESULTS = 10
Ask = Callable[[str], list[tuple[str, str, str]]]


class Engine(NamedTuple):
    """One built engine."""

    name: str
    build_s: float
    num_bytes: int
    ask: Ask
    """Query → (title, URL, snippet) of the hits."""


def vocabulary(rng: random.Random) -> list[str]:
    """Distinct pronounceable words, the short ones first, since frequent words are short."""
    syllables = [c + v + e for c in "bcdfghklmnprstvw" for v in "aeiou" for e in ("", "n", "r", "s", "l")]
    words: dict[str, None] = {}
    while len(words) < NUM_WORDS:
        words["".join(rng.choices(syllables, k=1 + min(3, len(words) // 300)))] = None
    return list(words)


def make_pages(num_pages: int, rng: random.Random) -> tuple[list[Page], list[str]]:
    """The pages, and the vocabulary in order of frequency."""
    words = vocabulary(rng)
    cumulated = list(accumulate(1 / (rank + 2.7) for rank in range(NUM_WORDS)))
    pages = []
    for number in range(num_pages):
        length = int(min(3000, max(30, rng.lognormvariate(5.0, 0.6))))
        drawn = rng.choices(words, cum_weights=cumulated, k=length)
        sentences = [" ".join(drawn[i : i + 14]).capitalize() + "." for i in range(0, length, 14)]
        title = " ".join(rng.sample(drawn, 3)).title()
        text = f"# {title}\n" + "\n".join(" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5))
        url = f"http://bench.example/wiki/{title.replace(' ', '_')}_{number}"
        pages.append(
            Page(
                url=url,
                title=title,
                text=text,
                published=date(2000 + number % 25, 1 + number % 12, 1 + number % 28),
                fetched_at=datetime(2025, 1, 1, tzinfo=UTC),
                content_hash=hashlib.sha256(text.encode()).hexdigest(),
            )
        )
    return pages, words


def make_queries(pages: list[Page], words: list[str], num_queries: int, rng: random.Random) -> list[str]:
    """Words that stand together in some page, three to six of them, half with a very frequent word among them."""
    queries = []
    for _ in range(num_queries):
        found = rng.choice(pages).text.replace(".", "").replace("#", "").split()
        chosen = rng.sample(found, rng.randint(3, 6))
        if rng.random() < 0.5:
            chosen.append(rng.choice(words[:30]))
        queries.append(" ".join(chosen))
    return queries


def size_of(*paths: Path) -> int:
    """Bytes of files and of folders with all that is in them."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())


def build_ours(pages: list[Page], folder: Path) -> Engine:
    """A snapshot, its WARC included in the time but not in the size."""
    start = time.perf_counter()
    with SnapshotWriter(folder) as writer:
        for page in pages:
            writer.add(page, status=200, headers=[("Content-Type", "text/html")], body=page.text.encode())
    seconds = time.perf_counter() - start
    snapshot = Snapshot.open(folder)

    def ask(query: str) -> list[tuple[str, str, str]]:
        return [(hit.title, hit.url, hit.snippet) for hit in snapshot.search(query, num_results=NUM_RESULTS)]

    return Engine("webdancer", seconds, size_of(folder / "index", folder / "pages.sqlite"), ask)


def build_tantivy(pages: list[Page], folder: Path) -> Engine:
    """tantivy as its documentation shows it: stored text, its own snippets. Hits are not counted, which is its fast way."""
    folder.mkdir()
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("title", stored=True)
    builder.add_text_field("text", stored=True)
    builder.add_text_field("url", stored=True, tokenizer_name="raw")
    builder.add_date_field("published", stored=True, indexed=True)
    schema = builder.build()
    start = time.perf_counter()
    index = tantivy.Index(schema, path=str(folder))
    writer = index.writer(heap_size=512_000_000, num_threads=1)
    for page in pages:
        assert page.published is not None
        published = datetime.combine(page.published, datetime.min.time(), UTC)
        writer.add_document(tantivy.Document(title=page.title, text=page.text, url=page.url, published=published))
    writer.commit()
    writer.wait_merging_threads()
    seconds = time.perf_counter() - start
    index.reload()
    searcher = index.searcher()

    def ask(query: str) -> list[tuple[str, str, str]]:
        parsed, _ = index.parse_query_lenient(query, ["title", "text"], field_boosts={"title": 2.0})
        snippets = tantivy.SnippetGenerator.create(searcher, parsed, schema, "text")
        snippets.set_max_num_chars(200)
        hits = []
        for _, address in searcher.search(parsed, limit=NUM_RESULTS, count=False).hits:
            found = searcher.doc(address)
            hits.append((found["title"][0], found["url"][0], snippets.snippet_from_doc(found).fragment()))
        return hits

    return Engine("tantivy", seconds, size_of(folder), ask)


def build_fts5(pages: list[Page], folder: Path) -> Engine:
    """SQLite FTS5 with bm25() and snippet()."""
    folder.mkdir()
    start = time.perf_counter()
    db = sqlite3.connect(folder / "fts.sqlite")
    db.execute("CREATE VIRTUAL TABLE pages USING fts5(title, text, url UNINDEXED, published UNINDEXED)")
    rows: Iterator[tuple[str, str, str, str]] = ((p.title, p.text, p.url, str(p.published)) for p in pages)
    db.executemany("INSERT INTO pages VALUES (?, ?, ?, ?)", rows)
    db.commit()
    db.execute("INSERT INTO pages(pages) VALUES ('optimize')")
    db.commit()
    seconds = time.perf_counter() - start

    def ask(query: str) -> list[tuple[str, str, str]]:
        match = " OR ".join(f'"{word}"' for word in query.split())
        return db.execute(
            "SELECT title, url, snippet(pages, 1, '', '', '…', 32) FROM pages WHERE pages MATCH ? "
            "ORDER BY bm25(pages, 2.0, 1.0) LIMIT ?",
            (match, NUM_RESULTS),
        ).fetchall()

    return Engine("SQLite FTS5", seconds, size_of(folder), ask)


def build_bm25s(pages: list[Page], folder: Path) -> Engine:
    """bm25s, in memory; it has no fields (the title stands before the text), no snippets and no way to add pages later."""
    start = time.perf_counter()
    tokenizer = bm25s.tokenization.Tokenizer(stopwords=[])
    tokens = tokenizer.tokenize([f"{p.title} {p.text}" for p in pages], show_progress=False)
    retriever = bm25s.BM25()
    retriever.index(tokens, show_progress=False)
    seconds = time.perf_counter() - start
    retriever.save(folder, corpus=[{"title": p.title, "url": p.url, "text": p.text} for p in pages])

    def ask(query: str) -> list[tuple[str, str, str]]:
        asked = tokenizer.tokenize([query], update_vocab="never", show_progress=False)
        found, _ = retriever.retrieve(asked, k=NUM_RESULTS, show_progress=False)
        return [(pages[i].title, pages[i].url, pages[i].text) for i in found[0]]

    return Engine("bm25s", seconds, size_of(folder), ask)


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies (nearest rank)."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def overlap(one: Engine, other: Engine, queries: list[str]) -> float:
    """Mean share of hits that two engines have in common."""
    found = [({hit[1] for hit in one.ask(query)}, {hit[1] for hit in other.ask(query)}) for query in queries]
    return sum(len(a & b) for a, b in found) / (NUM_RESULTS * len(found))


def measure(engines: list[Engine], queries: list[str], rng: random.Random) -> dict[str, list[float]]:
    """Milliseconds per query of every engine; the engines take turns within each query, in random order."""
    times: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for number, query in enumerate(queries):
        for engine in rng.sample(engines, len(engines)):
            start = time.perf_counter()
            hits = engine.ask(query)
            seconds = time.perf_counter() - start
            assert len(hits) == NUM_RESULTS, (engine.name, query, len(hits))
            if number >= 20:  # the first queries warm the caches
                times[engine.name].append(seconds * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pages", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=400)
    args = parser.parse_args()
    rng = random.Random(11)
    pages, words = make_pages(args.pages, rng)
    queries = make_queries(pages, words, args.queries + 20, rng)
    folder = Path(tempfile.mkdtemp(prefix="webdancer-search-"))
    try:
        builders = {"ours": build_ours, "tantivy": build_tantivy, "fts5": build_fts5, "bm25s": build_bm25s}
        engines = [build(pages, folder / name) for name, build in builders.items()]
        times = measure(engines, queries, rng)
        shared = overlap(engines[0], engines[1], queries)
    finally:
        shutil.rmtree(folder)
    report(engines, times, args.pages, shared)


def report(engines: list[Engine], times: dict[str, list[float]], num_pages: int, shared: float) -> None:
    """Print the table and write the JSON file."""
    print(f"{num_pages} pages, {len(times['webdancer'])} queries, {NUM_RESULTS} hits each")
    print(f"{'':<12} {'pages/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'MB':>8}")
    rows = {}
    for engine in engines:
        row = {
            "pages_per_s": round(num_pages / engine.build_s, 1),
            "p50_ms": round(percentile(times[engine.name], 0.5), 3),
            "p99_ms": round(percentile(times[engine.name], 0.99), 3),
            "mb": round(engine.num_bytes / 1e6, 1),
        }
        rows[engine.name] = row
        print(f"{engine.name:<12} {row['pages_per_s']:>9} {row['p50_ms']:>8} {row['p99_ms']:>8} {row['mb']:>8}")
    ratios = {key: round(rows["webdancer"][key] / rows["tantivy"][key], 2) for key in ("p50_ms", "p99_ms", "mb")}
    print(f"webdancer and tantivy have {shared:.1%} of their hits in common")
    print(
        "webdancer / tantivy: " + ", ".join(f"{key} {value}" for key, value in ratios.items()) + " (target p50 ≤ 1.3)"
    )
    OUT.parent.mkdir(exist_ok=True)
    result = {
        "num_pages": num_pages,
        "num_queries": len(times["webdancer"]),
        "engines": rows,
        "ratios": ratios,
        "shared_hits": shared,
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
