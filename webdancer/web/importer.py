"""WARC files written by others (wget, Common Crawl, Heritrix …) become a snapshot.

Response records of status 200 that hold HTML, text or PDF become pages, redirects and repeated content become aliases;
everything else is counted by the reason why it is none.
"""

import hashlib
import io
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fastwarc.stream_io import BrotliReader, ChunkedReader, GzipReader, WarcReader, ZstdReader
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from webdancer.errors import SnapshotError
from webdancer.records import Page
from webdancer.web.extract import extract
from webdancer.web.snapshot import SnapshotWriter
from webdancer.web.urls import canonical_url

log = logging.getLogger(__name__)

_MAX_BYTES = 20_000_000
_REDIRECTS = (301, 302, 303, 307, 308)
_DECODERS = {"gzip": GzipReader, "x-gzip": GzipReader, "br": BrotliReader, "zstd": ZstdReader}
_PAGE_TYPES = ("text/html", "application/xhtml+xml", "text/plain", "text/markdown", "application/pdf")


@dataclass(slots=True)
class ImportCounts:
    """What became of the records. Each response or revisit record is counted once, under `num_pages` to `num_damaged`."""

    num_records: int = 0
    """Response and revisit records read."""
    num_pages: int = 0
    num_already_in: int = 0
    """The URL is in the snapshot already; the first record of a URL wins."""
    num_redirects: int = 0
    num_same_content: int = 0
    """The same content as a page under another URL, and revisit records."""
    num_errors: int = 0
    """HTTP status other than 200 and redirects."""
    num_other_types: int = 0
    """Neither HTML nor text nor PDF, or no http(s) URL."""
    num_too_large: int = 0
    num_without_text: int = 0
    num_damaged: int = 0
    num_broken_files: int = 0
    """Files that could not be read to their end."""


def index_warcs(
    files: Sequence[Path], out: Path, *, on_page: Callable[[ImportCounts], None] | None = None
) -> ImportCounts:
    """Import WARC files (plain, gzip or zstd) into the snapshot `out`, which is made or added to.

    Args:
        on_page: called after each record, for a progress display.

    Raises:
        SnapshotError: a file is missing or no WARC file, or `out` cannot be written.
    """
    for file in files:
        if not file.is_file():
            raise SnapshotError(f"{file}: no such file; nothing was imported")
        if file.resolve().parent == (out / "warc").resolve():
            raise SnapshotError(f"{file}: lies among the files that {out} keeps for itself; choose another --out")
    with SnapshotWriter(out) as writer:
        importer = _Importer(writer)
        for file in files:
            importer.read(file, on_page)
    return importer.counts


class _Importer:
    """The state of one import."""

    def __init__(self, writer: SnapshotWriter) -> None:
        self.counts = ImportCounts()
        self._writer = writer
        self._url_by_hash = writer.urls_by_hash()

    def read(self, file: Path, on_page: Callable[[ImportCounts], None] | None) -> None:
        """Import one file; a damaged end is logged and counted."""
        before = self.counts.num_records
        try:
            kinds = WarcRecordType.response | WarcRecordType.revisit
            for record in ArchiveIterator(str(file), record_types=kinds, parse_http=False, fsspec_args=False):
                self.counts.num_records += 1
                try:
                    self._take(record)
                except (OSError, ValueError) as error:
                    self.counts.num_damaged += 1
                    log.info("%s: a damaged record at %d: %s", file, record.stream_pos, error)
                if on_page is not None:
                    on_page(self.counts)
        except (OSError, ValueError) as error:
            if self.counts.num_records == before:
                raise SnapshotError(f"{file}: not a readable WARC file: {error}") from error
            self.counts.num_broken_files += 1
            log.warning("%s: could be read only in part: %s", file, error)

    def _take(self, record: WarcRecord) -> None:
        counts = self.counts
        uri = record.headers.get("WARC-Target-URI")
        if uri is None:
            raise ValueError("no WARC-Target-URI")
        url = canonical_url(uri.strip("<>"))  # wget writes it in angle brackets
        if url is None or not record.is_http:
            counts.num_other_types += 1
            return
        if record.record_type == WarcRecordType.revisit:
            original = canonical_url((record.headers.get("WARC-Refers-To-Target-URI") or "").strip("<>"))
            if original is not None:
                self._writer.add_alias(url, original)
            counts.num_same_content += 1
            return
        record.parse_http(auto_decode="none")
        http = record.http_headers
        status = http.status_code if http is not None else None
        if http is None or status is None:
            raise ValueError("no HTTP status")
        headers = [(str(name), str(value)) for name, value in http.to_tuples()]
        if status in _REDIRECTS:
            target = canonical_url(_header(headers, "location") or "", url)
            if target is not None:
                self._writer.add_alias(url, target)
            counts.num_redirects += 1
        elif status != 200:
            counts.num_errors += 1
        else:
            self._take_page(url, record, headers)

    def _take_page(self, url: str, record: WarcRecord, headers: list[tuple[str, str]]) -> None:
        counts = self.counts
        received = record.reader.read(_MAX_BYTES + 1)
        if len(received) < min(record.content_length, _MAX_BYTES):
            raise ValueError(f"got {len(received)} bytes of {record.content_length}")  # fastwarc does not tell
        content_type = _header(headers, "content-type")
        kind = (content_type or "").partition(";")[0].strip().lower()
        if kind and kind not in _PAGE_TYPES:
            counts.num_other_types += 1
            return
        if url in self._writer:
            counts.num_already_in += 1
            return
        body = _decoded(received, headers)
        if len(body) > _MAX_BYTES:
            counts.num_too_large += 1
            return
        digest = hashlib.sha256(body)
        same = self._url_by_hash.get(digest.digest())
        if same is not None:
            self._writer.add_alias(url, same)
            counts.num_same_content += 1
            return
        found = extract(body, url=url, content_type=content_type)
        if not found.text:
            counts.num_without_text += 1
            return
        page = Page(
            url=url,
            title=found.title,
            text=found.text,
            links=found.links,
            published=found.published,
            fetched_at=_moment(record),
            content_hash=digest.hexdigest(),
        )
        kept = [(name, value) for name, value in headers if name.lower() != "content-encoding"]
        self._writer.add(page, status=200, headers=kept, body=body)
        self._url_by_hash[digest.digest()] = url
        counts.num_pages += 1


def _header(headers: list[tuple[str, str]], name: str) -> str | None:
    return next((value for key, value in headers if key.lower() == name), None)


def _decoded(body: bytes, headers: list[tuple[str, str]]) -> bytes:
    """A body without chunks and compression. Some writers decode the body and leave the headers: then it stays as it is."""
    if "chunked" in (_header(headers, "transfer-encoding") or "").lower():
        body = _read_through(ChunkedReader, body)
    for coding in reversed((_header(headers, "content-encoding") or "").lower().split(",")):
        coding = coding.strip()
        if coding == "deflate":
            body = _inflated(body)
        elif coding in _DECODERS:
            body = _read_through(_DECODERS[coding], body)
    return body


def _inflated(body: bytes) -> bytes:
    """Undo `deflate`: by the standard with zlib's frame, by many servers without."""
    for wbits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        try:
            return zlib.decompressobj(wbits).decompress(body, _MAX_BYTES + 1)
        except zlib.error:
            continue
    return body


def _read_through(reader: Callable[[io.BytesIO], WarcReader], body: bytes) -> bytes:
    try:
        return reader(io.BytesIO(body)).read(_MAX_BYTES + 1) or body
    except (OSError, ValueError):
        return body


def _moment(record: WarcRecord) -> datetime:
    moment = record.record_date
    if moment is None:
        return datetime.fromtimestamp(0, UTC)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
