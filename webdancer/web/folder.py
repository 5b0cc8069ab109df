"""A folder of documents on disk becomes a snapshot: HTML, text, Markdown and PDF files, each under `http://NAME/PATH`."""

import asyncio
import hashlib
import mimetypes
import os
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


class _Files(NamedTuple):
    """What is found out about the files on the way."""

    left_out: Counter[str]
    not_pages: dict[str, str]
    """Documents that turned out to be no pages, with the reason."""
    copies: list[tuple[str, str]]
    """Documents with the content of another one, and that one."""


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
    files = _Files(Counter(), {}, [])
    with SnapshotWriter(out) as writer:
        async with ExtractPool() as pool:
            documents = _documents(_checked(folder), writer, files)
            while batch := list(islice(documents, _num_next(writer, max_pages))):
                jobs = (pool.extract(Job(document.body, document.url, document.kind)) for document in batch)
                for document, extracted in zip(batch, await asyncio.gather(*jobs), strict=True):
                    problem = extracted if isinstance(extracted, ExtractProblem) else None
                    if isinstance(extracted, Extracted) and extracted.text.strip():
                        headers = [("Content-Type", document.kind)]
                        writer.add(_page(document, extracted), status=200, headers=headers, body=document.body)
                        on_page()
                    else:
                        files.not_pages[document.url] = problem or "without_text"
        left_out = _left_out(files, writer)
        if not (num_pages := len(writer)):
            raise SnapshotError(
                f"{folder}: none of its files became a page ({dict(left_out)}); expected HTML, text, Markdown or PDF"
            )
    return FolderCounts(num_pages, dict(left_out))


def _num_next(writer: SnapshotWriter, max_pages: int | None) -> int:
    """How many documents are read next."""
    return _BATCH if max_pages is None else max(0, min(_BATCH, max_pages - len(writer)))


def _left_out(files: "_Files", writer: SnapshotWriter) -> Counter[str]:
    """Why files are no pages; those with the content of a page become its other addresses."""
    left_out = files.left_out + Counter(files.not_pages.values())
    for url, first in files.copies:
        left_out[files.not_pages.get(first, "same_content")] += 1
        if first in writer:
            writer.add_alias(url, first)
    return left_out


def _checked(folder: Path) -> Path:
    root = folder.resolve()
    if not root.is_dir():
        raise SnapshotError(f"{folder}: no such folder")
    return root


def _documents(root: Path, writer: SnapshotWriter, files: _Files) -> Iterator[_Document]:
    """The files that may become pages and are not in the snapshot yet; the others are counted."""
    left_out = files.left_out
    known = {digest.hex(): url for digest, url in writer.urls_by_hash().items()}
    host = "".join(c if c.isalnum() else "-" for c in root.name.lower()).strip("-") or "folder"
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        relative = file.relative_to(root)
        kind = _TYPES.get(file.suffix.lower())
        url = canonical_url(f"http://{host}/{quote(os.fsencode(relative))}")
        if any(part.startswith(".") for part in relative.parts) or not file.resolve().is_relative_to(root):
            left_out["hidden_or_outside"] += 1
        elif kind is None or url is None:
            left_out[f"type {mimetypes.guess_type(file.name)[0] or 'unknown'}"] += 1
        elif file.stat().st_size > _MAX_BYTES:
            left_out["too_large"] += 1
        elif url not in writer:  # else of an attempt that was stopped
            try:
                body = file.read_bytes()
            except OSError:
                left_out["unreadable"] += 1
                continue
            digest = hashlib.sha256(body).hexdigest()
            if digest in known:
                files.copies.append((url, known[digest]))
                continue
            known[digest] = url
            yield _Document(
                url,
                os.fsencode(file.stem).decode("utf-8", "replace"),
                kind,
                body,
                datetime.fromtimestamp(file.stat().st_mtime, UTC),
            )


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
