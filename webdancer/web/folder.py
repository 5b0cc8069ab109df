"""A folder of documents on disk becomes a snapshot: HTML, text, Markdown and PDF files, each under `http://NAME/PATH`."""

import asyncio
import hashlib
import mimetypes
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from webdancer.errors import SnapshotError
from webdancer.records import Page
from webdancer.web.extract import Extracted
from webdancer.web.snapshot import SnapshotWriter
from webdancer.web.urls import canonical_url
from webdancer.web.workers import ExtractPool, ExtractProblem, Job

_TYPES = {
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".rst": "text/plain",
    ".pdf": "application/pdf",
}
_MAX_BYTES = 20_000_000
_BATCH = 32


class FolderCounts(NamedTuple):
    """What became of the files."""

    num_pages: int
    num_left_out: dict[str, int]
    """Files that are no pages, by reason."""


class _Document(NamedTuple):
    url: str
    name: str
    kind: str
    body: bytes
    changed_at: datetime


async def index_folder(
    folder: Path, out: Path, *, on_page: Callable[[], None] = lambda: None, max_pages: int | None = None
) -> FolderCounts:
    """Put the documents of a folder and its subfolders into the snapshot `out`, in the order of their paths.

    Hidden files and links that lead out of the folder are left out. The host of the pages is the folder's name.

    Raises:
        SnapshotError: there is no such folder, or not one document in it.
    """
    left_out: Counter[str] = Counter()
    with SnapshotWriter(out) as writer:
        async with ExtractPool() as pool:
            documents = _documents(_checked(folder), writer, left_out)
            while batch := list(
                islice(documents, _BATCH if max_pages is None else min(_BATCH, max_pages - len(writer)))
            ):
                jobs = (pool.extract(Job(document.body, document.url, document.kind)) for document in batch)
                for document, extracted in zip(batch, await asyncio.gather(*jobs), strict=True):
                    if isinstance(extracted, ExtractProblem):
                        left_out[extracted] += 1
                    elif not extracted.text.strip():
                        left_out["without_text"] += 1
                    else:
                        headers = [("Content-Type", document.kind)]
                        writer.add(_page(document, extracted), status=200, headers=headers, body=document.body)
                        on_page()
        if not (num_pages := len(writer)):
            raise SnapshotError(
                f"{folder}: none of its files became a page ({dict(left_out)}); expected HTML, text, Markdown or PDF"
            )
    return FolderCounts(num_pages, dict(left_out))


def _checked(folder: Path) -> Path:
    root = folder.resolve()
    if not root.is_dir():
        raise SnapshotError(f"{folder}: no such folder")
    return root


def _documents(root: Path, writer: SnapshotWriter, left_out: Counter[str]) -> Iterator[_Document]:
    """The files that may become pages and are not in the snapshot yet; the others are counted."""
    known = {digest.hex(): url for digest, url in writer.urls_by_hash().items()}
    host = "".join(c if c.isalnum() else "-" for c in root.name.lower()).strip("-") or "folder"
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        relative = file.relative_to(root)
        kind = _TYPES.get(file.suffix.lower())
        url = canonical_url(f"http://{host}/{quote(relative.as_posix())}")
        if any(part.startswith(".") for part in relative.parts) or not file.resolve().is_relative_to(root):
            left_out["hidden_or_outside"] += 1
        elif kind is None or url is None:
            left_out[f"type {mimetypes.guess_type(file.name)[0] or 'unknown'}"] += 1
        elif file.stat().st_size > _MAX_BYTES:
            left_out["too_large"] += 1
        elif url not in writer:  # else of an attempt that was stopped
            body = file.read_bytes()
            digest = hashlib.sha256(body).hexdigest()
            if digest in known:
                writer.add_alias(url, known[digest])
                left_out["same_content"] += 1
                continue
            known[digest] = url
            yield _Document(url, file.stem, kind, body, datetime.fromtimestamp(file.stat().st_mtime, UTC))


def _page(document: _Document, extracted: Extracted) -> Page:
    return Page(
        url=document.url,
        title=extracted.title or document.name,
        text=extracted.text,
        links=extracted.links,
        published=extracted.published,
        fetched_at=document.changed_at,
        content_hash=hashlib.sha256(document.body).hexdigest(),
    )
