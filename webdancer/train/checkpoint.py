"""The state of an interrupted training: one file per saved step, whole or not there at all, and whose state it is.

A new state is written under another name, brought to the disk and renamed; only then is the one before it removed. So at
every moment, kill -9 and power cuts included, the newest file under its own name is complete.

A state goes on only under the fingerprint that it was saved with: of the data, the weights at the start, and the settings
that the result depends on. Who ran out of memory may go on with smaller batches of computation.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from webdancer.config import PolicySettings, Settings
from webdancer.errors import StoreError
from webdancer.train.model import sync_folder

_FREE = {
    "micro_batch_tokens",
    "concurrency",
    "num_steps",
    "save_every_steps",
    "eval_every_steps",
    "num_kept_rollouts",
}
"""Settings that may change in the middle of a training: how it computes, how long it goes on, what is kept of it."""


def fingerprint(settings: Settings, *, seed: int, start: str = "", data: Iterable[str] = ()) -> str:
    """Names all that the result of a training depends on.

    Args:
        start: from `start_of`, where the training does not start from nothing.
        data: one text for each example.
    """
    digest = hashlib.sha256(f"{seed}\n{settings.model_dump_json(exclude=_FREE)}\n{start}\n".encode())
    for text in data:
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()


def start_of(base: Path, policy: PolicySettings) -> str:
    """Names the model that a training starts from: all bytes of its weights, and the settings that its numbers depend on."""
    parts = [
        policy.model_dump_json(include={"dtype", "max_context", "lora_rank", "lora_alpha", "embedding_rate_share"})
    ]
    for path in sorted([*base.glob("*.safetensors"), *base.glob("*.bin")]):
        with path.open("rb") as file:
            parts.append(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return "\n".join(parts)


class SavedState(NamedTuple):
    """What `write_state` was given."""

    step: int
    values: dict[str, Any]


def write_state(folder: Path, step: int, values: Mapping[str, object]) -> None:
    """Save `values` as the state after optimizer step `step`, in place of those before it.

    Raises:
        StoreError: it cannot be written; the state before it is left.
    """
    target = folder / f"step-{step:08d}.pt"
    write_values(target, values)
    for path in folder.iterdir():
        if path != target:
            path.unlink()


def read_state(folder: Path, *, mapped: bool = False) -> SavedState | None:
    """The newest state in `folder`, or None. Tensors lie on the CPU.

    Args:
        mapped: tensors stay in the file until they are read, for processes that need few of them.

    Raises:
        StoreError: the file is damaged.
    """
    paths = sorted(folder.glob("step-*.pt"))
    if not paths:
        return None
    return SavedState(int(paths[-1].stem.removeprefix("step-")), read_values(paths[-1], mapped=mapped))


def write_values(path: Path, values: Mapping[str, object]) -> None:
    """Write tensors, numbers, text, and lists and dicts of them: the file appears complete and synced, or not at all.

    Raises:
        StoreError: it cannot be written; an older file of that name is left as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(dict(values), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # After a write that failed, torch's writer fails once more at the file's end: the reason is the error before.
        reason = error if isinstance(error, OSError) else error.__context__
        if not isinstance(reason, OSError):
            raise
        raise StoreError(f"{path}: could not be written: {reason.strerror}; free some space and run again") from error


def read_values(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """What `write_values` has written, tensors on the CPU.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise StoreError(f"{path}: not a readable state ({error}); remove it to start anew") from error
    return values
