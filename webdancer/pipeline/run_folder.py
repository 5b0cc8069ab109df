"""A run's folder: its settings, its manifest, and which stages are done.

A folder belongs to one configuration; only the settings of stages that are still to come may change. Every stage is
resumable by itself; the manifest only remembers which ones are complete, so that they are not looked at again, and how many
seconds they took over all attempts. Who deletes the folder of a training or of the evaluation has that stage done again.
"""

import json
import platform
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from webdancer.config import Config
from webdancer.errors import ConfigError
from webdancer.pipeline.processes import is_first_process, process_number
from webdancer.store import write_json

_LIBRARIES = ("accelerate", "aiohttp", "openai", "pydantic", "tantivy", "torch", "transformers", "webdancer")


_CHANGEABLE = {
    "synth": "synth",
    "sample": "sample",
    "sample.sft_share": "synth",
    "agent": "sample",
    "llm": "sample",
    "llm.default": "synth",
    "llm.writer": "synth",
    "llm.rewriter": "synth",
    "funnel": "sample",
    "web": "sample",
    "policy": "rl",
    "policy.base": "sft",
    "policy.lora_rank": "sft",
    "policy.lora_alpha": "sft",
    "sft": "sft",
    "rl": "rl",
    "eval": "eval",
}
"""Sections and single settings, each with the stage up to which it may change; what is not named never may."""
_FREE = {
    *("base_url", "api_key_env", "api_key_file", "timeout_s", "max_attempts", "max_concurrent", "requests_per_minute"),
    *("tokens_per_minute", "stream", "price_prompt", "price_cached", "price_completion", "price_per_call"),
    *("policy.device", "policy.num_threads", "policy.max_batch"),
    *("synth.concurrency", "sample.concurrency", "rl.concurrency", "eval.concurrency"),
}
"""Settings that may change at any time: of any endpoint where it is reached and how often it is asked, and how many at once."""
_FREE_SECTIONS = ("budget.", "forecast.", "mcp")
_KEEPS_STATE = ("sft", "rl")
"""Stages that check for themselves whether what they have begun goes on under other settings."""
_OWN_FOLDER = ("sft", "rl", "eval")
"""Stages whose output is all in the folder of their name; each is made from those before it."""


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
            self._reopen_deleted()
            differences = _differences(found.config.model_dump(mode="json"), config.model_dump(mode="json"))
            late = ", ".join(difference for key, difference in differences.items() if not self._may_change(key))
            if late:
                raise ConfigError(
                    f"{path} holds a run with other settings ({late}); give another folder, or delete it to start again"
                    + self._what_to_delete(differences)
                )
            if any(key.startswith("crawl.") for key in differences):
                shutil.rmtree(path / "snapshot", ignore_errors=True)  # holds no page, but which addresses were tried
            if differences:
                self.manifest = found.model_copy(update={"config": config})
                self._save()

    def _reopen_deleted(self) -> None:
        """Forget that a stage is done whose folder is gone, and all stages after it."""
        done = self.manifest.stages
        gone = next((stage for stage in _OWN_FOLDER if self.is_done(stage) and not (self.path / stage).exists()), None)
        if gone is None:
            return
        later = list(done)[list(done).index(gone) + 1 :]
        left = [name for name in dict.fromkeys([*later, "eval"]) if (self.path / name).exists()]
        if left:
            raise ConfigError(
                f"{self.path / gone} is gone, but {' and '.join(left)} beside it stem from it; delete them too, and the "
                f"run goes on from the stage {gone!r}"
            )
        for name in (gone, *later):
            del done[name]
        self._save()

    def _may_change(self, key: str) -> bool:
        """Whether a setting, `section.name`, is of a stage that is still to come."""
        if (
            key in _FREE
            or key.startswith(_FREE_SECTIONS)
            or (key.startswith(("llm.", "web.")) and key.rpartition(".")[2] in _FREE)
        ):
            return True
        stage = _stage_of(key)
        if key.startswith("crawl.") and not self.is_done("crawl"):
            return not _has_pages(self.path / "snapshot")  # nothing was found under a mistyped address
        if stage is None:
            return False
        return not self.is_done(stage) if stage in _KEEPS_STATE else stage not in self.manifest.stages

    def _what_to_delete(self, keys: Iterable[str]) -> str:
        """Where the late settings are all of training and evaluation: which folders bring them back."""
        stages = {_stage_of(key) for key in keys if not self._may_change(key)}
        if not stages <= set(_OWN_FOLDER):
            return ""
        first = min(_OWN_FOLDER.index(stage) for stage in stages if stage is not None)
        folders = [name for name in (*_OWN_FOLDER[first:], "sft_more") if (self.path / name).exists()]
        return f" (to do these stages again, delete {' and '.join(folders)} in it)" if folders else ""

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
        self._save()  # a stage that is killed has begun
        start = time.perf_counter()
        try:
            yield
            entry.done = True
        finally:
            entry.seconds += time.perf_counter() - start
            self._save()


def ledger_of_process(run: Path) -> Path:
    """The ledger of this process: of several that train together each has its own."""
    return run / ("ledger.jsonl" if is_first_process() else f"ledger.{process_number()}.jsonl")


def _has_pages(snapshot: Path) -> bool:
    """Whether a crawl, finished or not, has stored a page."""
    try:
        with closing(sqlite3.connect(f"file:{snapshot / 'pages.sqlite'}?mode=ro", uri=True)) as pages:
            return bool(pages.execute("SELECT 1 FROM pages LIMIT 1").fetchone())
    except sqlite3.Error:
        return False


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


def _stage_of(key: str) -> str | None:
    """The stage up to which a setting may change, by the longest name in `_CHANGEABLE` that it begins with."""
    while key:
        if key in _CHANGEABLE:
            return _CHANGEABLE[key]
        key = key.rpartition(".")[0]
    return None


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


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Keys whose values differ, each with `section.key: old → new`."""
    found: dict[str, str] = {}
    for key in new:
        before, after = old.get(key), new[key]
        if isinstance(before, dict) and isinstance(after, dict):
            found |= _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found[prefix + key] = f"{prefix}{key}: {json.dumps(before)} → {json.dumps(after)}"
    return found
