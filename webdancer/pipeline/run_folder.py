"""A run's folder: its settings, its manifest, and which stages are done.

A folder belongs to one configuration. Every stage is resumable by itself; the manifest only remembers which ones are
complete, so that they are not looked at again, and how many seconds they took over all attempts.
"""

import json
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ValidationError

from webdancer.config import Config
from webdancer.errors import ConfigError
from webdancer.pipeline.processes import is_first_process
from webdancer.store import write_json

_LIBRARIES = ("accelerate", "aiohttp", "openai", "pydantic", "tantivy", "torch", "transformers", "webdancer")


class StageEntry(BaseModel):
    """One stage in the manifest."""

    done: bool = False
    seconds: float = 0.0


class Manifest(BaseModel):
    """What produced a run."""

    config: Config
    git_revision: str | None
    versions: dict[str, str]
    stages: dict[str, StageEntry] = {}


class RunFolder:
    """The folder of one run, opened for work.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config
        found = read_manifest(path)
        if found is None:
            self.manifest = Manifest(config=config, git_revision=_git_revision(), versions=_versions())
            self._save()
        else:
            self.manifest = found
            if found.config != config:
                changed = ", ".join(_differences(found.config.model_dump(), config.model_dump()))
                raise ConfigError(
                    f"{path} holds a run with other settings ({changed}); give another folder, or delete it to start again"
                )

    def _save(self) -> None:
        if is_first_process():
            write_json(self.path / "manifest.json", self.manifest.model_dump(mode="json"))

    def is_done(self, stage: str) -> bool:
        """Whether a stage is complete."""
        return self.manifest.stages.get(stage, StageEntry()).done

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, over all attempts."""
        return {name: round(entry.seconds, 2) for name, entry in self.manifest.stages.items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; it counts as done once the block ends without an error."""
        entry = self.manifest.stages.setdefault(name, StageEntry())
        start = time.perf_counter()
        try:
            yield
            entry.done = True
        finally:
            entry.seconds += time.perf_counter() - start
            self._save()


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of the run in a folder, None where there is no run.

    Raises:
        ConfigError: it is damaged, or from another version.
    """
    file = path / "manifest.json"
    try:
        return Manifest.model_validate_json(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{file} is no manifest of this version ({where}: {first['msg']}); give another folder, or delete it to start again"
        ) from None


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES if _is_installed(name)}}


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _git_revision() -> str | None:
    """Revision of the source tree that runs, None where it is not a checkout."""
    here = Path(__file__).parent
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _differences(old: dict[str, object], new: dict[str, object], prefix: str = "") -> list[str]:
    """Keys whose values differ, as `section.key: old → new`."""
    found = []
    for key in new:
        before, after = old.get(key), new[key]
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {json.dumps(before, default=str)} → {json.dumps(after, default=str)}")
    return found
