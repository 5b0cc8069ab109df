"""Records every call that leaves the run, or answers the calls of a run from such a recording.

    calls.jsonl    one `RecordedCall` per call that ended: its reply, or how it failed
    pages.jsonl    the pages that calls brought, each once
    web/           the pages that were fetched live, as a snapshot: WARC files and index, to search and to run on
    snapshots/     the webs that were crawled

Recorded or replayed is what a role got in the end: retries are behind it. While recording, a call that the tape holds already is
not made again if it succeeded (a run that was killed and goes on repeats the calls of unfinished work, and they are paid for);
one that failed is, and the later outcome counts. A replayed run makes no call at all.
"""

import filecmp
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Generic, NamedTuple, NoReturn, Self, TypeVar

from pydantic import JsonValue, TypeAdapter

from webdancer.calls.scope import current_scope
from webdancer.errors import (
    BudgetError,
    ConfigError,
    ModelError,
    ReplayError,
    SnapshotError,
    StoreError,
    WebdancerError,
)
from webdancer.keys import redact
from webdancer.records import Page, Record
from webdancer.store import RecordWriter, copy_folder, read_records
from webdancer.web.protocol import ToolFailure
from webdancer.web.snapshot import SnapshotWriter

T = TypeVar("T")
_SHOWN_CHARS = 200
_TIMED_OUT = "TimedOut"
_NOT_OUTCOMES = (BudgetError, ConfigError, ReplayError, SnapshotError, StoreError)
"""Errors that say nothing of what was called."""
_TELLING = ("snapshot.json", "pages.sqlite")
"""Files of a crawled web by which it is told from another."""


class CallKind(StrEnum):
    """What is called."""

    CHAT = "chat"
    SEARCH = "search"
    PAGE = "page"
    TOOL = "tool"
    """A tool of an MCP server."""


class TimedOut(TimeoutError):
    """The call was given up when it was recorded: whoever waited for it had waited too long."""


class RecordedCall(Record):
    """One call that ended."""

    id: str
    """`CALL-n`: the n-th outcome of this very call."""
    request: str
    """Digest of what was asked of whom, in whatever scope."""
    kind: CallKind
    who: str
    """Role and model, or search engine."""
    scope: str
    shown: str
    """The end of the request, for reading."""
    reply: JsonValue = None
    page: str | None = None
    """In place of a reply: the page in pages.jsonl."""
    error: str | None = None
    """In place of a reply: the type of the error."""
    message: str = ""
    seconds: float = 0.0


class StoredPage(Record):
    """A page that a call brought; `id` is a digest of it."""

    id: str
    page: Page


class _Outcome(NamedTuple):
    """How a call ended: `reply`, or `page`, or `error` with its message."""

    reply: JsonValue
    page: str | None
    error: str | None
    message: str


class Codec(Generic[T]):
    """How the replies of one kind of call become JSON and back."""

    def __init__(self, kind: type[T]) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)

    def to_json(self, reply: T) -> JsonValue:
        """The reply as a JSON value."""
        value: JsonValue = self._adapter.dump_python(reply, mode="json")
        return value

    def from_json(self, value: JsonValue) -> T:
        """The reply that `to_json` was given."""
        return self._adapter.validate_json(json.dumps(value))


class Tape:
    """A recording, opened to be written or (`replay`) to answer from. Used as a context manager.

    Raises:
        ReplayError: there is no recording to answer from.
        StoreError: it is damaged, or another process writes it.
    """

    def __init__(self, folder: Path, *, replay: bool) -> None:
        self.folder, self.is_replay = folder, replay
        calls, pages = folder / "calls.jsonl", folder / "pages.jsonl"
        if replay and not calls.exists():
            raise ReplayError(f"{folder} holds no recording (there is no calls.jsonl); make one with --record {folder}")
        self._made: Counter[tuple[str, str]] = Counter()
        self._num_outcomes: Counter[str] = Counter()
        self._outcomes: dict[str, _Outcome] = {}
        self._by_request: dict[str, _Outcome] = {}
        self._calls = None if replay else RecordWriter(calls, RecordedCall)
        self._page_file = None if replay else RecordWriter(pages, StoredPage)
        self._pages = {stored.id: stored.page for stored in read_records(pages, StoredPage)}
        for call in read_records(calls, RecordedCall):
            self._remember(call)
        # What a killed recording left is finished when this one closes, also where no further page is fetched.
        is_resumed = not replay and (folder / "web").exists()
        self._web = SnapshotWriter(folder / "web") if is_resumed else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Bring all to the disk; the pages that were fetched live become a finished snapshot."""
        for writer in (self._calls, self._page_file, self._web):
            if writer is not None:
                writer.close()

    async def call(
        self, kind: CallKind, who: str, request: JsonValue, make: Callable[[], Awaitable[T]], codec: Codec[T]
    ) -> T:
        """The reply to a call: from the tape, or made and recorded.

        Raises:
            ReplayError: replayed, and the tape does not hold the call.
            ModelError, ToolFailure: as the call failed, now or when it was recorded.
            TimedOut: the call was given up when it was recorded.
        """
        scope, asked = current_scope(), _digest([kind, who, request])
        number = self._made[scope, asked]
        self._made[scope, asked] += 1
        key = _digest([asked, scope, number])
        known = self._outcomes.get(key)
        if self.is_replay:
            # A cache that episodes share makes one call for all of them, in the scope of whichever came first.
            known = known or self._by_request.get(asked)
            if known is None:
                raise ReplayError(
                    f"{self.folder}: no {kind} call to {who} like this one was recorded (scope {scope or 'none'}, the "
                    f"request ends in {_shown(request)!r}); replay with the settings and the version of the recording"
                )
            return self._replayed(known, codec)
        if known is not None and known.error is None:
            return self._replayed(known, codec)
        started = time.perf_counter()
        outcome = None
        try:
            value = await make()
            outcome = self._kept(value, codec)
            return value
        except (ModelError, ToolFailure) as failure:
            outcome = _Outcome(None, None, _kind_of(failure), redact(str(failure)))
            raise
        except BaseException as failure:  # given up, by a time limit or by Ctrl-C, or a bug
            if not isinstance(failure, _NOT_OUTCOMES):
                outcome = _Outcome(None, None, _TIMED_OUT, "")
            raise
        finally:
            if outcome is not None:
                seconds = round(time.perf_counter() - started, 3)
                self._write(RecordedCall(
                    id=f"{key}-{self._num_outcomes[key]}", request=asked, kind=kind, who=who, scope=scope,
                    shown=_shown(request), seconds=seconds, **outcome._asdict(),
                ))  # fmt: skip

    def keep_live_page(self, page: Page, *, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Put a page that was fetched live into the snapshot of the recording, unless it holds one of that address."""
        if self.is_replay:
            raise ValueError("a replayed run fetches no page")
        if self._web is None:
            self._web = SnapshotWriter(self.folder / "web")
        if self._web.add(page, status=status, headers=headers, body=body):
            self._web.flush()  # the recorded call is never made again, so its page must survive kill -9 as the call does

    def keep_snapshot(self, name: str, snapshot: Path) -> None:
        """Put a crawled web into the recording.

        Raises:
            StoreError: it holds another one of that name.
        """
        kept = self.folder / "snapshots" / name
        if not kept.exists():
            copy_folder(snapshot, kept)
        elif filecmp.cmpfiles(kept, snapshot, _TELLING, shallow=False)[1]:
            raise StoreError(
                f"{self.folder} holds the crawled web {name!r} of another run, and can give back only one; record this run in a "
                "folder of its own (--record FOLDER), or go on with the run that was recorded here"
            )

    def restore_snapshot(self, name: str, snapshot: Path) -> None:
        """Put a crawled web of the recording where a run expects it.

        Raises:
            ReplayError: the recording has none of that name.
        """
        kept = self.folder / "snapshots" / name
        if not kept.exists():
            raise ReplayError(
                f"{self.folder} holds no crawled web {name!r}; it was recorded after the crawl, or by ask"
            )
        if not (snapshot / "snapshot.json").exists():
            copy_folder(kept, snapshot)

    def _kept(self, value: T, codec: Codec[T]) -> _Outcome:
        """What is written of a reply; pages are written once, by themselves."""
        if not isinstance(value, Page):
            return _Outcome(codec.to_json(value), None, None, "")
        assert self._page_file is not None
        digest = _digest(value.model_dump(mode="json"))
        if digest not in self._pages:
            self._pages[digest] = value
            self._page_file.append(StoredPage(id=digest, page=value))
        return _Outcome(None, digest, None, "")

    def _replayed(self, known: _Outcome, codec: Codec[T]) -> T:
        if known.error is not None:
            _raise(known.error, known.message)
        if known.page is None:
            return codec.from_json(known.reply)
        if known.page not in self._pages:
            raise ReplayError(f"{self.folder / 'pages.jsonl'}: the page {known.page} of a recorded call is missing")
        return codec.from_json(self._pages[known.page].model_dump(mode="json"))

    def _write(self, call: RecordedCall) -> None:
        assert self._calls is not None
        self._calls.append(call)
        self._remember(call)

    def _remember(self, call: RecordedCall) -> None:
        key = call.id.rpartition("-")[0]
        outcome = _Outcome(call.reply, call.page, call.error, call.message)
        self._num_outcomes[key] += 1
        self._outcomes[key] = outcome
        before = self._by_request.get(call.request)
        if before is None or before.error is not None:
            self._by_request[call.request] = outcome


def _kind_of(failure: Exception) -> str:
    """The nearest kind that every caller knows: kinds of single modules tell no more to whom waits for the call."""
    common = (ModelError.__module__, ToolFailure.__module__)
    return next(kind.__name__ for kind in type(failure).__mro__ if kind.__module__ in common)


def _raise(error: str, message: str) -> NoReturn:
    """Raise an error as it was recorded; a type that is not known here counts as its nearest kind."""
    if error == _TIMED_OUT:
        raise TimedOut("given up when it was recorded")
    for base in (ModelError, ToolFailure):
        for kind in _family(base):
            if kind.__name__ == error:
                raise kind(message)
    raise ReplayError(
        f"the recording holds an error of the unknown type {error!r}; replay with the version that made it"
    )


def _family(base: type[WebdancerError]) -> list[type[WebdancerError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in _family(child))]


def _digest(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _shown(request: JsonValue) -> str:
    """The end of a request on one line."""
    flat = " ".join(json.dumps(request, ensure_ascii=False).split())
    return flat[-_SHOWN_CHARS:]
