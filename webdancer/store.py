"""Append-only JSONL files of records: one writer, resumable by id, whole lines or nothing.

A line counts once it ends with a newline. A torn last line (power cut, kill -9 in the middle of a write) is cut off when
the file is next opened for writing, and skipped when it is read. A line that is damaged elsewhere is an error, because
something other than us wrote it.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from webdancer.errors import StoreError
from webdancer.records import Record

R = TypeVar("R", bound=Record)

_FSYNC_EVERY = 256
"""Records between two fsyncs. kill -9 loses none (the kernel has them); a power cut loses at most so many."""


class RecordWriter(Generic[R]):
    """Appends records of one type to a file; at most one writer at a time, in this process or another.

    Args:
        path: the file; made with its folders where missing.
        model: the record type. Its records need an `id` field where `key` is left alone.
        key: name of the field that identifies a record; `ids` holds those that are already in the file.

    Raises:
        StoreError: another writer holds the file, or a line of it is damaged.
    """

    def __init__(self, path: Path, model: type[R], *, key: str = "id") -> None:
        self.path, self._key = path, key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # No buffer: a write that fails must leave nothing behind that could reach the disk later.
            self._file = path.open("ab+", buffering=0)
        except OSError as error:
            raise StoreError(f"{path}: cannot be opened for writing: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._repair_tail()
            self.ids: set[str] = {str(getattr(record, key)) for record in read_records(path, model)}
        except BlockingIOError:
            self._file.close()
            raise StoreError(f"{path}: another process is writing it; stop that run or choose another folder") from None
        except BaseException:
            self._file.close()
            raise
        self._unsynced = 0

    def _repair_tail(self) -> None:
        """Cut off what follows the last newline."""
        size = self._file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            self._file.seek(start)
            newline = self._file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            self._file.truncate(end)

    def append(self, record: R) -> None:
        """Append one record as one whole line.

        Raises:
            StoreError: the record's id is already in the file, or the disk is full (the file keeps its end).
        """
        record_id = str(getattr(record, self._key))
        if record_id in self.ids:
            raise StoreError(f"{self.path}: {self._key} {record_id!r} is already in the file")
        rest = memoryview(_to_line(record))
        size = os.fstat(self._file.fileno()).st_size
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            self._unsynced += 1
            if self._unsynced >= _FSYNC_EVERY:
                self.sync()
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            raise StoreError(
                f"{self.path}: could not append {self._key} {record_id!r}: {error.strerror}. "
                "Nothing before it is lost; free some space and run the same command again"
            ) from error
        self.ids.add(record_id)

    def sync(self) -> None:
        """Bring all appended records to the disk."""
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def close(self) -> None:
        """Sync and release the file."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _to_line(record: Record) -> bytes:
    """One JSON line. Half surrogate pairs, which models can write and UTF-8 cannot hold, become `?`."""
    try:
        return record.model_dump_json().encode() + b"\n"
    except PydanticSerializationError:
        clean = _valid_unicode(record.model_dump())
        return type(record).model_validate(clean).model_dump_json().encode() + b"\n"


def _valid_unicode(value: object) -> object:
    if isinstance(value, dict):
        return {_valid_unicode(key): _valid_unicode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_valid_unicode(item) for item in value]
    return value.encode("utf-8", "replace").decode() if type(value) is str else value


def read_records(path: Path, model: type[R]) -> Iterator[R]:
    """The records of a file in their order; a torn last line is skipped, a missing file holds none.

    Raises:
        StoreError: a line before the last is damaged or of another type.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                where = ".".join(str(part) for part in first["loc"]) or "line"
                raise StoreError(
                    f"{path}, line {number}: not a {model.__name__} record ({where}: {first['msg']}); "
                    "it may come from another version: start a new run folder"
                ) from None


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write a whole file anew: it appears complete or not at all. Returns how many records it holds."""
    lines = [_to_line(record) for record in records]
    write_atomic(path, b"".join(lines).decode())
    return len(lines)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file anew: it appears complete or not at all."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_atomic(path: Path, text: str) -> None:
    """Write a text file through a temporary one and a rename.

    Raises:
        StoreError: it cannot be written; an older file of that name is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: could not be written: {error.strerror}; free some space or choose another folder"
        ) from error


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder so that it appears whole or not at all; what stands in its place goes.

    Raises:
        StoreError: it cannot be written.
    """
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise StoreError(f"{target}: could not be copied from {source}: {error}; free some space") from error
