"""The crawler: sites to a snapshot, breadth first (paper, section 2: the web that CRAWLQA walks over).

URLs are started in the order of the frontier and **settled in that same order**, however long each takes: a window of
visits is under way, and only its head is taken off. Which pages are stored, which of two equal pages is the main one (the
first in that order: least deep, then earliest link), which link meets a limit: none of it depends on timing, as long as
the servers answer alike. The price: a slow page holds back what lies more than a window behind it.

    frontier ──start──▶ [ visit │ visit │ visit │ … ]  robots.txt, pace, request, extraction in a worker
        ▲                   │ head done
        └──links, admitted──┴──▶ snapshot   (flushed before the frontier commits: a page is never lost, and one that
                                             was stored but not committed is not stored a second time)

Departures: links of a duplicate are not followed; which hosts' pages fill `max_pages` may depend on timing where
`max_pages_per_host` bites at the same time; meta robots tags are not read.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from webdancer.config import CrawlSettings
from webdancer.errors import SnapshotError
from webdancer.records import Page, Record
from webdancer.store import write_json
from webdancer.web.admission import Admission, Decision
from webdancer.web.extract import Extracted
from webdancer.web.fetch import Fetcher, FetchProblem, FetchResult
from webdancer.web.frontier import Entry, Frontier, Settled, UrlState
from webdancer.web.robots import origin_of
from webdancer.web.scope import Scope
from webdancer.web.snapshot import SnapshotWriter
from webdancer.web.visit import Visit, Visitor
from webdancer.web.workers import ExtractPool, ExtractProblem

log = logging.getLogger(__name__)

_WINDOW = 512
"""Visits under way or waiting for their turn to be settled."""
_MAX_HELD_BYTES = 256_000_000
"""Bodies that wait to be settled, before no further visit is started."""
_COMMIT_EVERY = 200
_COMMIT_EVERY_S = 2.0
_LOAD = 1000
_NOT_IDENTITY = frozenset(
    {"urls", "resolve", "allow_private", "headers", "max_per_host", "delay_s", "max_crawl_delay_s", "timeout_s"}
)
"""Settings that may differ when a crawl is resumed: they change its pace or its way to the servers, not its pages."""


class CrawlCounts(Record):
    """What a crawl has done so far, or did. Every URL met in scope is counted once, by what became of it."""

    num_pages: int = 0
    num_duplicates: int = 0
    num_redirects: int = 0
    num_robots_blocked: int = 0
    """URLs left out for robots.txt: forbidden, rules not to be had, or a Crawl-delay above `max_crawl_delay_s`."""
    num_errors: dict[str, int] = Field(default_factory=dict)
    """By problem: a `FetchProblem` or an `ExtractProblem`."""
    num_needs_javascript: int = 0
    """Pages, counted in `num_pages`, that have no text unless their scripts run."""
    num_trapped: int = 0
    num_over_limit: int = 0
    skipped_hosts: dict[str, str] = Field(default_factory=dict)
    """Origin → why nothing was fetched from it."""
    seconds: float = 0.0
    """Wall time of fetching, all sittings together, without the building of the index."""
    pages_per_s: float = 0.0
    finished: bool = False


OnPage = Callable[[CrawlCounts], None]


async def crawl(settings: CrawlSettings, out: Path, *, on_page: OnPage | None = None) -> CrawlCounts:
    """Crawl from `settings.urls` into the snapshot folder `out`; goes on where an earlier run in that folder stopped.

    A finished crawl is not repeated, unless it found no page at all (the server was down). The frontier stays as
    `frontier.sqlite`, the counts as `crawl.json`.

    Args:
        on_page: called with the counts so far after each URL that was dealt with.

    Raises:
        ConfigError: no roots, or a setting that does not fit.
        SnapshotError: `out` holds a crawl with other settings, another process writes it, or the disk is full.
    """
    scope = Scope(settings)
    try:
        with contextlib.closing(Frontier(out / "frontier.sqlite")) as frontier:
            _check_identity(frontier, settings, scope, out)
            if frontier.meta("finished") is None or not any(frontier.rows([UrlState.PAGE])):
                await _crawl(settings, scope, frontier, out, on_page)
            counts = _counts(frontier.tally(), frontier)
    except sqlite3.Error as error:
        raise SnapshotError(
            f"{out / 'frontier.sqlite'}: could not be written: {error}. Nothing that was committed before is lost; "
            "free some space and run the same command again"
        ) from error
    write_json(out / "crawl.json", counts.model_dump())
    return counts


async def _crawl(settings: CrawlSettings, scope: Scope, frontier: Frontier, out: Path, on_page: OnPage | None) -> None:
    """Crawl to the end what is not finished."""
    if frontier.meta("finished") is not None:
        frontier.clear()
    with SnapshotWriter(out) as writer:
        async with _open(settings, scope, frontier, writer) as run:
            await run.run(on_page)
        _write_aliases(frontier, writer)
    frontier.set_meta("finished", "1")
    frontier.commit()


def _check_identity(frontier: Frontier, settings: CrawlSettings, scope: Scope, out: Path) -> None:
    """Refuse to mix two crawls in one folder."""
    identity = str(sorted(scope.roots)) + settings.model_dump_json(exclude=set(_NOT_IDENTITY))
    found = frontier.meta("settings")
    if found is None:
        frontier.set_meta("settings", identity)
        frontier.commit()
    elif found != identity:
        old, new = _by_name(found), _by_name(identity)
        changes = [
            f"{name}: got {new.get(name)!r}, begun with {old.get(name)!r}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        raise SnapshotError(
            f"{out}: holds a crawl with other settings ({'; '.join(changes)}); "
            "choose another folder, or give the settings that it was begun with"
        )


def _by_name(identity: str) -> dict[str, object]:
    roots, _, settings = identity.partition("{")
    return {"urls": roots, **json.loads("{" + settings)}


@contextlib.asynccontextmanager
async def _open(
    settings: CrawlSettings, scope: Scope, frontier: Frontier, writer: SnapshotWriter
) -> AsyncIterator["_Crawl"]:
    """The parts of a running crawl. However it ends, what was settled is committed."""
    async with Fetcher(settings) as fetcher, ExtractPool() as pool:
        run = _Crawl(settings, scope, frontier, writer)
        run.visitor = Visitor(fetcher, pool, settings, known_hashes=run.main_of)
        try:
            yield run
        finally:
            await run.stop()


class _InFlight(NamedTuple):
    entry: Entry
    visit: asyncio.Task[Visit] | None
    """None: the host had all its pages when its turn came."""


class _Crawl:
    """The state of a running crawl; all of it follows from the frontier's rows."""

    visitor: Visitor

    def __init__(self, settings: CrawlSettings, scope: Scope, frontier: Frontier, writer: SnapshotWriter) -> None:
        self._settings, self._frontier, self._writer = settings, frontier, writer
        self._admission = Admission(settings, scope, frontier.rows())
        self.main_of = {
            str(row.settled.content_hash): row.url for row in frontier.rows([UrlState.PAGE]) if row.settled.content_hash
        }
        self._tally = Counter(frontier.tally())
        self._num_pages = len(self.main_of)
        self._pages_of_host = Counter(origin_of(url) for url in self.main_of.values())
        self._in_flight_of_host: Counter[str] = Counter()
        self._window: deque[_InFlight] = deque()
        self._queue: deque[Entry] = deque()
        self._last_id = 0
        self._held_bytes = 0
        self._uncommitted = 0
        self._committed_s = self._started_s = time.monotonic()
        self._seconds_before = float(frontier.meta("seconds") or 0.0)
        if not self._tally:
            self._record(self._admission.roots(), depth=0)

    async def run(self, on_page: OnPage | None) -> None:
        """Until nothing is left to fetch."""
        self._fill()
        while self._window:
            head = self._window[0]
            visit = None if head.visit is None else await head.visit
            self._window.popleft()
            self._settle(head.entry, visit)
            if on_page is not None:
                on_page(_counts(self._tally, self._frontier, self._seconds(), final=False))
            if self._uncommitted >= _COMMIT_EVERY or time.monotonic() - self._committed_s > _COMMIT_EVERY_S:
                self._commit()
            self._fill()
            await asyncio.sleep(0)  # visits that are done are awaited without a pause; others must get on meanwhile
        self._frontier.close_pending("max_pages")

    async def stop(self) -> None:
        """Give up what is under way and commit what was settled."""
        tasks = [flight.visit for flight in self._window if flight.visit is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.visitor.close()
        self._commit()

    def _fill(self) -> None:
        """Start visits in the order of the frontier, as far as limits allow."""
        limit = self._settings.max_pages_per_host
        while len(self._window) < _WINDOW and self._held_bytes < _MAX_HELD_BYTES:
            if self._num_pages + len(self._window) >= self._settings.max_pages:
                return  # what is under way may fill the limit; if it does not, its settling brings us back here
            if not self._queue:
                self._queue.extend(self._frontier.pending(after=self._last_id, limit=_LOAD))
                if not self._queue:
                    return
                self._last_id = self._queue[-1].id
            host = origin_of(self._queue[0].url)
            if self._pages_of_host[host] >= limit:
                self._window.append(_InFlight(self._queue.popleft(), None))
            elif self._pages_of_host[host] + self._in_flight_of_host[host] >= limit:
                return
            else:
                entry = self._queue.popleft()
                self._in_flight_of_host[host] += 1
                self._window.append(_InFlight(entry, asyncio.create_task(self._visit(entry))))

    async def _visit(self, entry: Entry) -> Visit:
        visit = await self.visitor.visit(entry)
        self._held_bytes += _num_bytes(visit)
        return visit

    def _settle(self, entry: Entry, visit: Visit | None) -> None:
        """Record what became of a URL. Called in the order of the frontier."""
        if visit is None:
            settled = Settled(UrlState.OVER_LIMIT, "max_pages_per_host")
        else:
            self._in_flight_of_host[origin_of(entry.url)] -= 1
            self._held_bytes -= _num_bytes(visit)
            settled = self._judge(entry, visit)
        self._frontier.settle(entry.id, settled)
        self._tally[UrlState.PENDING, ""] -= 1
        self._tally[settled.state, settled.reason] += 1
        self._uncommitted += 1

    def _judge(self, entry: Entry, visit: Visit) -> Settled:
        if self._admission.is_closed(entry.url):
            return Settled(UrlState.TRAPPED, "barren")
        if visit.result is None:
            return Settled(UrlState.BLOCKED, visit.blocked or "")
        result = visit.result
        if result.location is not None:
            return self._judge_redirect(entry, result.location)
        if result.problem is not None:
            log.info("%s: %s (%s)", entry.url, result.problem, result.detail)
            return Settled(UrlState.ERROR, result.problem)
        if (main := self.main_of.get(visit.content_hash)) is not None:
            return Settled(UrlState.DUPLICATE, "", main, visit.content_hash)
        if isinstance(visit.extracted, Extracted):
            return self._store(entry, visit, result, visit.extracted)
        return Settled(UrlState.ERROR, visit.extracted or ExtractProblem.CRASHED)

    def _judge_redirect(self, entry: Entry, target: str) -> Settled:
        """A redirect's target waits for its own turn, with robots.txt, pace and limits of its own."""
        if target == entry.url:
            return Settled(UrlState.ERROR, FetchProblem.REDIRECT_LOOP)
        if not self._admission.in_scope(target):
            return Settled(UrlState.ERROR, FetchProblem.OUT_OF_SCOPE, target)
        if entry.hops >= self._settings.max_redirects:
            return Settled(UrlState.ERROR, FetchProblem.TOO_MANY_REDIRECTS, target)
        decision = self._admission.redirect_target(entry, target)
        if decision is not None:
            self._record([decision], depth=entry.depth, hops=entry.hops + 1)
        return Settled(UrlState.REDIRECT, "", target)

    def _store(self, entry: Entry, visit: Visit, result: FetchResult, extracted: Extracted) -> Settled:
        """A new page: into the snapshot, its links into the frontier."""
        assert visit.fetched_at is not None
        page = Page(
            url=entry.url,
            title=extracted.title,
            text=extracted.text,
            links=extracted.links,
            published=extracted.published,
            fetched_at=visit.fetched_at,
            content_hash=visit.content_hash,
        )
        self._writer.add(page, status=result.status, headers=list(result.headers.items()), body=result.raw)
        self.main_of[visit.content_hash] = entry.url
        self._num_pages += 1
        self._pages_of_host[origin_of(entry.url)] += 1
        decisions = self._admission.links(entry, extracted.links)
        self._record(decisions, depth=entry.depth + 1)
        words = self._admission.note_page(entry, extracted.text, decisions)
        reason = "needs_javascript" if extracted.needs_javascript else ""
        return Settled(UrlState.PAGE, reason, None, visit.content_hash, words)

    def _record(self, decisions: list[Decision], *, depth: int, hops: int = 0) -> None:
        for decision in decisions:
            if decision.state is UrlState.PENDING:
                self._frontier.add(decision.url, depth=depth, hops=hops, own_pattern=decision.own_pattern)
            else:
                self._frontier.reject(decision.url, depth=depth, state=decision.state, reason=decision.reason)
            self._tally[decision.state, decision.reason] += 1

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started_s

    def _commit(self) -> None:
        """The snapshot first: what the frontier calls a page is in it."""
        self._writer.flush()
        self._frontier.set_meta("seconds", f"{self._seconds():.3f}")
        self._frontier.commit()
        self._uncommitted = 0
        self._committed_s = time.monotonic()


def _num_bytes(visit: Visit) -> int:
    return 0 if visit.result is None else len(visit.result.raw) + len(visit.result.body)


def _write_aliases(frontier: Frontier, writer: SnapshotWriter) -> None:
    """Let duplicates and redirects stand for the page that they lead to. Redirects that run in a circle become errors."""
    states = (UrlState.PAGE, UrlState.DUPLICATE, UrlState.REDIRECT)
    rows = {row.url: row.settled for row in frontier.rows(states)}
    loops = []
    for url, settled in rows.items():
        seen, target = {url}, url
        while settled.target is not None:
            target = settled.target
            if target in seen:
                loops.append(url)
                break
            seen.add(target)
            settled = rows.get(target, Settled(UrlState.ERROR))
        if settled.state is UrlState.PAGE:
            writer.add_alias(url, target)
    for url in loops:
        frontier.fail(url, FetchProblem.REDIRECT_LOOP)


def _counts(
    tally: dict[tuple[UrlState, str], int], frontier: Frontier, seconds: float | None = None, *, final: bool = True
) -> CrawlCounts:
    """Sum up the numbers of URLs by state and reason."""
    by_state: Counter[UrlState] = Counter()
    errors: Counter[str] = Counter()
    for (state, reason), num in tally.items():
        by_state[state] += num
        if state is UrlState.ERROR:
            errors[str(reason)] += num
    if seconds is None:
        seconds = float(frontier.meta("seconds") or 0.0)
    num_pages = by_state[UrlState.PAGE]
    return CrawlCounts(
        num_pages=num_pages,
        num_duplicates=by_state[UrlState.DUPLICATE],
        num_redirects=by_state[UrlState.REDIRECT],
        num_robots_blocked=by_state[UrlState.BLOCKED],
        num_errors=dict(sorted(errors.items())),
        num_needs_javascript=tally.get((UrlState.PAGE, "needs_javascript"), 0),
        num_trapped=by_state[UrlState.TRAPPED],
        num_over_limit=by_state[UrlState.OVER_LIMIT],
        skipped_hosts=_skipped_hosts(frontier) if final else {},
        seconds=round(seconds, 3),
        pages_per_s=round(num_pages / seconds, 2) if seconds > 0 else 0.0,
        finished=final and frontier.meta("finished") is not None,
    )


def _skipped_hosts(frontier: Frontier) -> dict[str, str]:
    rows = frontier.rows([UrlState.BLOCKED])
    return {origin_of(row.url): row.settled.reason for row in rows if row.settled.reason != "robots"}
