"""The folder of an export: one format each, told by `export.json`, and no file that is half there.

`export.json` names the format, the version that wrote it, the system prompt that stands in the records, and how many records each
file holds. It is written first without `is_complete`, so that an export that was cut short is known as one, and again at the end;
then files of an earlier export that this one did not write are deleted.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from webdancer import __version__
from webdancer.errors import StoreError
from webdancer.store import write_atomic, write_json
from webdancer.trajectories.formats import DataFormat

MANIFEST = "export.json"


class ExportManifest(BaseModel):
    """The content of `export.json`."""

    format: DataFormat
    webdancer: str = __version__
    is_complete: bool = False
    system_prompt_name: str
    system_prompt: str
    """As it stands in the records."""
    files: dict[str, int | None] = {}
    """Each file with its number of records; None for one that holds none, such as a description."""


class ExportFolder:
    """A folder to export to.

    Raises:
        StoreError: the folder holds an export of another format, or files that no export wrote.
    """

    def __init__(self, path: Path, manifest: ExportManifest) -> None:
        self.path, self.manifest = path, manifest
        before = _earlier(path)
        if before is not None and before.format is not manifest.format:
            raise StoreError(
                f"{path} holds an export in the format {before.format.value!r}; give another folder for {manifest.format.value!r}"
            )
        self._old_files = set(before.files) if before else set()
        self._save()

    def write_rows(self, name: str, rows: Iterable[dict[str, JsonValue]]) -> None:
        """Write JSON lines."""
        num_rows = 0
        with replacing(self.path / name) as temporary, temporary.open("w", encoding="utf-8", errors="replace") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                num_rows += 1
        self._note(name, num_rows)

    def write_text(self, name: str, text: str) -> None:
        """Write a text that holds no records."""
        write_atomic(self.path / name, text)
        self._note(name, None)

    def write_json(self, name: str, value: JsonValue) -> None:
        """Write a JSON file that holds no records."""
        write_json(self.path / name, value)
        self._note(name, None)

    @contextmanager
    def writing(self, name: str, num_records: int) -> Iterator[Path]:
        """A path to write a file under; it gets its name once the block ends without an error."""
        with replacing(self.path / name) as temporary:
            yield temporary
        self._note(name, num_records)

    def finish(self) -> ExportManifest:
        """Mark the export as whole; files of an earlier one that it did not write anew go."""
        for name in self._old_files - set(self.manifest.files):
            with suppress(OSError):
                (self.path / name).unlink(missing_ok=True)
        self.manifest = self.manifest.model_copy(update={"is_complete": True})
        self._save()
        return self.manifest

    def _note(self, name: str, num_records: int | None) -> None:
        self.manifest = self.manifest.model_copy(update={"files": {**self.manifest.files, name: num_records}})
        self._save()

    def _save(self) -> None:
        # Files that are still of the earlier export stay named, so that a later one can delete them.
        left = dict.fromkeys(self._old_files) if not self.manifest.is_complete else {}
        shown = self.manifest.model_copy(update={"files": {**left, **self.manifest.files}})
        write_json(self.path / MANIFEST, shown.model_dump(mode="json"))


def _earlier(path: Path) -> ExportManifest | None:
    """The manifest of the export in a folder; None where the folder is empty or not there.

    Raises:
        StoreError: there is something else.
    """
    try:
        names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"--out {path}: {error.strerror}; expected a folder") from None
    if not names:
        return None
    try:
        manifest = ExportManifest.model_validate_json((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        raise StoreError(
            f"{path} is no export of this version: it holds {', '.join(names[:3])}; give a folder that is new or empty"
        ) from None
    if outside := [name for name in manifest.files if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise StoreError(f"{path / MANIFEST} names {outside[0]!r}, which is not in the folder; give another folder")
    return manifest


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there replaces it once the block ends without an error.

    Raises:
        StoreError: it cannot be written; an older file of that name is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path}: could not be written: {error.strerror}; free some space or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
