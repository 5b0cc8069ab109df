"""A snapshot: crawled pages in a folder, searchable, with the responses as received.

    SNAPSHOT/warc/00000.warc.gz …   responses as received (WARC 1.1, one gzip member per record)
             pages.sqlite           the authority on which pages are in: text, links, title, date; aliases; state of the WARC
             index/                 tantivy over title and text, built from pages.sqlite when the writer closes
             snapshot.json          version and counts; written last: a folder without it is unfinished

Pages and WARC records are made durable together by `flush`: the WARC is synced first, then its length is committed in the
same transaction as the pages. After kill -9 the WARC is cut back to that length, which is the end of a whole record. Pages
are indexed in the order of their URLs by one thread, so neither scores nor ties depend on the order of the crawl.
"""

import contextlib
import fcntl
import json
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from webdancer.errors import SnapshotError
from webdancer.records import Page
from webdancer.store import write_json
from webdancer.web.index import SearchIndex, build_index
from webdancer.web.protocol import SearchHit
from webdancer.web.snippets import SnippetMaker
from webdancer.web.urls import canonical_url
from webdancer.web.warc import WarcFolder

FORMAT_VERSION = 1
_TEXT_LEVEL = 4
_FLUSH_EVERY = 256
"""Pages between two automatic flushes."""
_MAX_ALIAS_HOPS = 8

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pages (
  id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, title TEXT NOT NULL, published TEXT, fetched_at TEXT NOT NULL,
  content_hash BLOB NOT NULL, text BLOB NOT NULL, links BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS aliases (url TEXT PRIMARY KEY, target TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS warc (name TEXT PRIMARY KEY, size INTEGER NOT NULL);
"""
_COLUMNS = "url, title, published, fetched_at, content_hash, text, links"


class SnapshotWriter:
    """Adds pages to a snapshot; at most one writer at a time. Opening a folder that a killed writer left resumes it.

        with SnapshotWriter(path) as writer:
            writer.add(page, status=200, headers=[("Content-Type", "text/html")], body=raw)
            writer.add_alias("http://a.example/old", page.url)

    Leaving the `with` block closes the snapshot; leaving it by an exception suspends it.

    Raises:
        SnapshotError: another writer holds the folder, it cannot be written, or its WARC files are shorter than the page
            store says. Every method raises it where the disk is full; then nothing is flushed any more, and the folder
            stays as the last flush left it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / ".lock").open("w")
        except OSError as error:
            raise SnapshotError(f"{path}: cannot be written: {error.strerror}; choose another folder") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise SnapshotError(
                f"{path}: another process is writing this snapshot; stop it or choose another"
            ) from None
        try:
            self._db = sqlite3.connect(path / "pages.sqlite", isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._warc = WarcFolder(path / "warc", dict(self._db.execute("SELECT name, size FROM warc")))
        except (OSError, sqlite3.Error, SnapshotError) as error:
            self._lock.close()
            raise SnapshotError(f"{path}: cannot be written: {error}") from error
        self._db.execute("BEGIN")
        self._unflushed = 0
        self._closed = False
        self._failure: SnapshotError | None = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """After a write that failed, what is in memory and on the disk may differ: nothing of it may be made durable."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self._failure = SnapshotError(
                f"{self.path}: could not be written: {reason}. Nothing that was flushed before is lost; "
                "free some space and run the same command again"
            )
            raise self._failure from error

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM pages").fetchone()[0])

    def __contains__(self, url: str) -> bool:
        """Is there a page under exactly this URL (aliases do not count)?"""
        return self._db.execute("SELECT 1 FROM pages WHERE url = ?", (url,)).fetchone() is not None

    def add(self, page: Page, *, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> bool:
        """Add a page with its response. Durable after the next `flush`.

        Args:
            status: HTTP status of the response.
            headers: as received, in order. `Transfer-Encoding` is dropped and `Content-Length` set, since the body is stored
                without chunks.
            body: as received after transfer-decoding. Where the headers name a `Content-Encoding`, it is still encoded.

        Returns:
            False, and nothing is written, where a page with this URL is already in.
        """
        if page.url in self:
            return False
        row = (
            page.url,
            page.title,
            page.published.isoformat() if page.published else None,
            page.fetched_at.isoformat(),
            _pack_hash(page.content_hash),
            zlib.compress(page.text.encode("utf-8", "replace"), _TEXT_LEVEL),
            zlib.compress("\n".join(page.links).encode(), _TEXT_LEVEL),
        )
        with self._writing():
            self._unfinish()
            self._warc.write_response(page.url, page.fetched_at, status=status, headers=headers, body=body)
            self._db.execute(f"INSERT INTO pages ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._unflushed += 1
        if self._unflushed >= _FLUSH_EVERY:
            self.flush()
        return True

    def add_alias(self, url: str, target: str) -> None:
        """Let `url` (a redirect, or a page with the same content) stand for the page `target`. Durable after `flush`."""
        if url != target:
            with self._writing():
                self._unfinish()
                self._db.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?)", (url, target))

    def urls_by_hash(self) -> dict[bytes, str]:
        """SHA-256 of a page's content → its URL (the first in the order of adding)."""
        return dict(self._db.execute("SELECT content_hash, url FROM pages ORDER BY id DESC"))

    def _unfinish(self) -> None:
        (self.path / "snapshot.json").unlink(missing_ok=True)

    def flush(self) -> None:
        """Make everything added so far survive kill -9 and power cuts."""
        with self._writing():
            for name, size in self._warc.sync():
                self._db.execute("INSERT OR REPLACE INTO warc VALUES (?, ?)", (name, size))
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")
        self._unflushed = 0

    def suspend(self) -> None:
        """Flush and release the folder without finishing it; a later writer goes on from here."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._failure is None:
                self.flush()
                with self._writing():
                    self._db.execute("COMMIT")
                    self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    self._db.execute("PRAGMA journal_mode=DELETE")
        finally:
            self._db.close()  # takes back what was not flushed
            self._warc.close()
            self._lock.close()

    def close(self) -> None:
        """Flush, build the index and write snapshot.json: from here on `Snapshot.open` takes the folder."""
        if self._closed:
            return
        try:
            self.flush()
            if not (self.path / "snapshot.json").exists():
                with self._writing():
                    self._build_index()
                num_aliases = self._db.execute("SELECT count(*) FROM aliases").fetchone()[0]
                counts = {"version": FORMAT_VERSION, "num_pages": len(self), "num_aliases": num_aliases}
                write_json(self.path / "snapshot.json", counts)
        finally:
            self.suspend()

    def _build_index(self) -> None:
        fresh = self.path / "index.new"
        shutil.rmtree(fresh, ignore_errors=True)
        rows = self._db.execute("SELECT id, title, text, published FROM pages ORDER BY url")
        build_index(
            fresh,
            ((id_, title, _unpack(text), int(day[:4]) if day else None) for id_, title, text, day in rows),
        )
        shutil.rmtree(self.path / "index", ignore_errors=True)
        fresh.rename(self.path / "index")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.suspend()


class Snapshot:
    """A finished snapshot, open for reading. Methods may be called from several threads."""

    def __init__(self, path: Path, db: sqlite3.Connection, index: SearchIndex, num_pages: int) -> None:
        self.path = path
        self._db = db
        self._db_lock = threading.Lock()
        self._index = index
        self._num_pages = num_pages

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the snapshot in a folder.

        Raises:
            SnapshotError: there is none, it is unfinished, damaged, or of another version.
        """
        manifest = path / "snapshot.json"
        try:
            counts = json.loads(manifest.read_text(encoding="utf-8"))
        except OSError:
            if (path / "pages.sqlite").exists():
                raise SnapshotError(
                    f"{path}: the snapshot is unfinished; run the same crawl or index command again"
                ) from None
            raise SnapshotError(
                f"{path}: no snapshot here (there is no snapshot.json); got the right folder?"
            ) from None
        except ValueError as error:
            raise SnapshotError(f"{manifest}: not valid JSON ({error}); make the snapshot anew") from None
        version = counts.get("version") if isinstance(counts, dict) else None
        if version != FORMAT_VERSION:
            raise SnapshotError(f"{path}: snapshot of version {version}, expected {FORMAT_VERSION}; make it anew")
        try:
            uri = f"{(path / 'pages.sqlite').resolve().as_uri()}?mode=ro"
            db = sqlite3.connect(uri, uri=True, check_same_thread=False)
            num_pages = db.execute("SELECT count(*) FROM pages").fetchone()[0]
            index = SearchIndex(path / "index")
        except (sqlite3.DatabaseError, ValueError) as error:
            raise SnapshotError(f"{path}: the snapshot is damaged ({error}); make it anew") from None
        return cls(path, db, index, num_pages)

    def __len__(self) -> int:
        """Number of pages, aliases not counted."""
        return self._num_pages

    def urls(self) -> list[str]:
        """The URLs of all pages, sorted; aliases are not among them."""
        with self._db_lock:
            return [row[0] for row in self._db.execute("SELECT url FROM pages ORDER BY url")]

    def page(self, url: str) -> Page | None:
        """The page under a URL: its own, an alias of it, or another spelling of either. None where there is none."""
        with self._db_lock:
            row = self._row(url)
            if row is None and (canonical := canonical_url(url)) not in (None, url):
                row = self._row(str(canonical))
        return None if row is None else _page(row)

    def _row(self, url: str) -> tuple[str, str, str | None, str, bytes, bytes, bytes] | None:
        for _ in range(_MAX_ALIAS_HOPS):
            row: tuple[str, str, str | None, str, bytes, bytes, bytes] | None = self._db.execute(
                f"SELECT {_COLUMNS} FROM pages WHERE url = ?", (url,)
            ).fetchone()
            if row is not None:
                return row
            alias = self._db.execute("SELECT target FROM aliases WHERE url = ?", (url,)).fetchone()
            if alias is None:
                return None
            url = alias[0]
        return None

    def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        """The best pages for a query, best first; equal scores in the order of their URLs. Any string is a query.

        Args:
            year: only pages published in that year.
        """
        found = self._index.search(query, num_results=num_results, year=year)
        if not found.ids:
            return []
        marks = ",".join("?" * len(found.ids))
        with self._db_lock:
            rows = self._db.execute(
                f"SELECT id, url, title, published, text FROM pages WHERE id IN ({marks})", found.ids
            ).fetchall()
        by_id = {row[0]: row for row in rows}
        maker = SnippetMaker(found.weights)
        hits = []
        for id_ in found.ids:
            _, url, title, published, text = by_id[id_]
            snippet = maker.cut(_unpack(text))
            hits.append(SearchHit(title, url, date.fromisoformat(published) if published else None, snippet))
        return hits

    def close(self) -> None:
        """Release the files."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _page(row: tuple[str, str, str | None, str, bytes, bytes, bytes]) -> Page:
    url, title, published, fetched_at, content_hash, text, links = row
    joined = _unpack(links)
    return Page(
        url=url,
        title=title,
        text=_unpack(text),
        links=tuple(joined.split("\n")) if joined else (),
        published=date.fromisoformat(published) if published else None,
        fetched_at=datetime.fromisoformat(fetched_at),
        content_hash=content_hash.hex(),
    )


def _unpack(data: bytes) -> str:
    return zlib.decompress(data).decode()


def _pack_hash(content_hash: str) -> bytes:
    return bytes.fromhex(content_hash)
