"""The frontier: every URL of a crawl and what became of it, in one SQLite file.

URLs are taken in the order in which they were added, which is breadth first because a page's links are added when the
page is settled, in the same order. Nothing is synced to the disk on commit (WAL, synchronous=NORMAL): kill -9 loses
nothing that was committed, a power cut may lose the last commits but leaves a sound file.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from webdancer.errors import SnapshotError

_VERSION = "1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS url (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE,
    depth INTEGER NOT NULL,
    hops INTEGER NOT NULL,
    own_pattern INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    target TEXT,
    content_hash TEXT,
    words TEXT
);
CREATE INDEX IF NOT EXISTS pending ON url (id) WHERE state = 'pending';
"""


class UrlState(StrEnum):
    """What became of a URL."""

    PENDING = "pending"
    PAGE = "page"
    DUPLICATE = "duplicate"
    """Its body equals that of `target`."""
    REDIRECT = "redirect"
    ERROR = "error"
    BLOCKED = "blocked"
    """Left out for the host's robots.txt."""
    TRAPPED = "trapped"
    OVER_LIMIT = "over_limit"


class Entry(NamedTuple):
    """A URL that waits for its turn."""

    id: int
    url: str
    depth: int
    hops: int
    """Redirects that led here."""
    own_pattern: bool
    """Found on a page of the same URL pattern."""


class Settled(NamedTuple):
    """What is kept of a URL that was dealt with."""

    state: UrlState
    reason: str = ""
    target: str | None = None
    content_hash: str | None = None
    words: str | None = None
    """Pages whose URL has digits or a query: digest of the words of the text. `-` in front: the page was barren."""


class Row(NamedTuple):
    """A URL with its state, as a resumed crawl needs it."""

    url: str
    settled: Settled


class Frontier:
    """Opens or makes the file at `path`.

    Raises:
        SnapshotError: the file is no frontier of this version, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.executescript(_SCHEMA)
            self._db.execute("BEGIN IMMEDIATE")
        except (OSError, sqlite3.Error) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise SnapshotError(
                    f"{path.parent}: another process is crawling into this folder; stop it or choose another"
                ) from None
            raise SnapshotError(f"{path}: cannot be opened as a crawl's frontier: {error}") from None
        found = self.meta("version") or self.set_meta("version", _VERSION)
        if found != _VERSION:
            raise SnapshotError(f"{path}: got frontier version {found}, expected {_VERSION}; choose another folder")

    def meta(self, key: str) -> str | None:
        """A value kept with the crawl."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> str:
        """Keep a value with the crawl; gives it back."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        return value

    def add(self, url: str, *, depth: int, hops: int = 0, own_pattern: bool = False) -> None:
        """Put a new URL at the end of the queue."""
        self._insert(url, depth, hops, own_pattern, UrlState.PENDING, "")

    def reject(self, url: str, *, depth: int, state: UrlState, reason: str) -> None:
        """Record a new URL that will not be fetched."""
        self._insert(url, depth, 0, False, state, reason)

    def _insert(self, url: str, depth: int, hops: int, own_pattern: bool, state: UrlState, reason: str) -> None:
        self._db.execute(
            "INSERT INTO url (url, depth, hops, own_pattern, state, reason) VALUES (?, ?, ?, ?, ?, ?)",
            (url, depth, hops, own_pattern, state, reason),
        )

    def settle(self, entry_id: int, settled: Settled) -> None:
        """Record what became of a URL."""
        self._db.execute(
            "UPDATE url SET state = ?, reason = ?, target = ?, content_hash = ?, words = ? WHERE id = ?",
            (*settled, entry_id),
        )

    def pending(self, *, after: int, limit: int) -> list[Entry]:
        """The next URLs that wait, in order, with an id above `after`."""
        rows = self._db.execute(
            "SELECT id, url, depth, hops, own_pattern FROM url WHERE state = 'pending' AND id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [Entry(entry_id, url, depth, hops, bool(own)) for entry_id, url, depth, hops, own in rows]

    def rows(self, states: Iterable[UrlState] = tuple(UrlState)) -> Iterator[Row]:
        """URLs in the given states, in the order in which they were added."""
        wanted = tuple(states)
        marks = ", ".join("?" * len(wanted))
        query = f"SELECT url, state, reason, target, content_hash, words FROM url WHERE state IN ({marks}) ORDER BY id"
        for url, state, *rest in self._db.execute(query, wanted):
            yield Row(url, Settled(UrlState(state), *rest))

    def close_pending(self, reason: str) -> None:
        """Mark all URLs that still wait as left out for a limit."""
        self._db.execute("UPDATE url SET state = 'over_limit', reason = ? WHERE state = 'pending'", (reason,))

    def fail(self, url: str, reason: str) -> None:
        """Turn a URL into an error after all, as when its redirects turn out to run in a circle."""
        self._db.execute("UPDATE url SET state = 'error', reason = ? WHERE url = ?", (reason, url))

    def tally(self) -> dict[tuple[UrlState, str], int]:
        """Number of URLs by state and reason."""
        rows = self._db.execute("SELECT state, reason, count(*) FROM url GROUP BY state, reason")
        return {(UrlState(state), reason): num for state, reason, num in rows}

    def commit(self) -> None:
        """Make all that was recorded so far survive a kill."""
        self._db.execute("COMMIT")
        self._db.execute("BEGIN IMMEDIATE")

    def clear(self) -> None:
        """Forget all URLs and what is kept with the crawl but its settings."""
        self._db.execute("DELETE FROM url")
        self._db.execute("DELETE FROM meta WHERE key NOT IN ('settings', 'version')")

    def close(self) -> None:
        """Close; what was not committed is taken back. The write-ahead log is folded into the file."""
        self._db.close()
