"""WARC files (ISO 28500, version 1.1): one gzip member per record, so that every record can be read by itself."""

import base64
import gzip
import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from urllib.parse import quote

from webdancer.errors import SnapshotError

_LEVEL = 4
_MAX_FILE_BYTES = 1_000_000_000
"""A file that has grown beyond this is followed by a new one."""
_NOT_STORED = frozenset({"transfer-encoding", "content-length", "connection", "keep-alive", "trailer"})
_SOFTWARE = "webdancer"
_OWN_NAME = re.compile(r"\d{5,}\.warc\.gz")


class WarcFolder:
    """Appends response records to `00000.warc.gz`, `00001.warc.gz` …

    Args:
        sizes: name → length up to which a file is known to be whole. Files are cut back to it, others of
            such names are removed; files of other names are not ours and stay.

    Raises:
        SnapshotError: a file is shorter than it should be.
    """

    def __init__(self, path: Path, sizes: dict[str, int]) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        for file in path.glob("*.warc.gz"):
            if file.name not in sizes and _OWN_NAME.fullmatch(file.name):
                file.unlink()
        for name, size in sizes.items():
            self._repair(path / name, size)
        self._number = max(len(sizes) - 1, 0)
        self._file: FileIO | None = None
        self._size = 0

    @staticmethod
    def _repair(file: Path, size: int) -> None:
        found = file.stat().st_size if file.exists() else 0
        if found < size:
            raise SnapshotError(f"{file}: got {found} bytes, expected {size}: the file was cut or lost; crawl anew")
        if found > size:
            os.truncate(file, size)

    def write_response(
        self, url: str, fetched_at: datetime, *, status: int, headers: Sequence[tuple[str, str]], body: bytes
    ) -> None:
        """Append one response. The record's id follows from URL and body, so that the same page gives the same record.

        Raises:
            OSError: the disk is full; the file ends with the record before.
        """
        head = [f"HTTP/1.1 {status} {_reason(status)}"]
        head += [f"{_one_line(name)}: {_one_line(value)}" for name, value in headers if name.lower() not in _NOT_STORED]
        head.append(f"Content-Length: {len(body)}")
        block = "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body
        payload_digest = _digest(body)
        self._append(
            {
                "WARC-Type": "response",
                "WARC-Record-ID": _record_id(f"{url} {payload_digest}"),
                "WARC-Date": _timestamp(fetched_at),
                "WARC-Target-URI": quote(url, safe="/:?#[]@!$&'()*+,;=%~"),
                "WARC-Payload-Digest": payload_digest,
                "WARC-Block-Digest": _digest(block),
                "Content-Type": "application/http; msgtype=response",
            },
            block,
        )

    def _append(self, headers: dict[str, str], block: bytes) -> None:
        file = self._current(headers["WARC-Date"])
        self._write(file, _record(headers, block))

    def _write(self, file: FileIO, record: bytes) -> None:
        """Write a whole record or nothing."""
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            os.ftruncate(file.fileno(), self._size)
            raise
        self._size += len(record)

    def _current(self, timestamp: str) -> FileIO:
        """The file to append to, opened or begun where needed."""
        if self._file is not None and self._size > _MAX_FILE_BYTES:
            self._sync_file()
            self._file.close()
            self._file = None
            self._number += 1
        if self._file is None:
            name = f"{self._number:05}.warc.gz"
            self._file = (self._path / name).open("ab", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
            if self._size == 0:
                self._write(self._file, _info_record(name, timestamp))
        return self._file

    def sync(self) -> Iterator[tuple[str, int]]:
        """Bring all records to the disk; gives name and length of the files that may have grown."""
        if self._file is not None:
            self._sync_file()
        for number in range(self._number + 1):
            file = self._path / f"{number:05}.warc.gz"
            if file.exists():
                yield file.name, file.stat().st_size

    def _sync_file(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; what was not synced is not counted on."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _info_record(name: str, timestamp: str) -> bytes:
    """The record that opens a file."""
    info = f"software: {_SOFTWARE}\r\nformat: WARC File Format 1.1\r\n".encode()
    headers = {
        "WARC-Type": "warcinfo",
        "WARC-Record-ID": _record_id(f"warcinfo {name}"),
        "WARC-Date": timestamp,
        "WARC-Filename": name,
        "WARC-Block-Digest": _digest(info),
        "Content-Type": "application/warc-fields",
    }
    return _record(headers, info)


def _record(headers: dict[str, str], block: bytes) -> bytes:
    """One record as a gzip member."""
    lines = ["WARC/1.1", *(f"{name}: {value}" for name, value in headers.items()), f"Content-Length: {len(block)}"]
    return gzip.compress("\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n", _LEVEL, mtime=0)


def _record_id(name: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}>"


def _digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def _timestamp(moment: datetime) -> str:
    """UTC with seconds; a time without a zone is taken as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _one_line(text: str) -> str:
    return " ".join(text.split())
