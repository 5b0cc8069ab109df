"""The state of an interrupted training: one file per saved step, whole or not there at all.

A new state is written under another name, brought to the disk and renamed; only then is the one before it removed. So at
every moment, kill -9 and power cuts included, the newest file under its own name is complete.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from webdancer.errors import StoreError
from webdancer.train.model import sync_folder


class SavedState(NamedTuple):
    """What `write_state` was given."""

    step: int
    values: dict[str, Any]


def write_state(folder: Path, step: int, values: Mapping[str, object]) -> None:
    """Save `values` (tensors, numbers, text, and lists and dicts of them) as the state after optimizer step `step`.

    Raises:
        StoreError: it cannot be written; the state before it is left.
    """
    target = folder / f"step-{step:08d}.pt"
    temporary = folder / f".{target.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(dict(values), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(folder)
        for path in folder.iterdir():
            if path != target:
                path.unlink()
    except OSError as error:
        raise StoreError(f"{target}: could not be written: {error.strerror}; free some space and run again") from error


def read_state(folder: Path, *, device: torch.device | str = "cpu", mapped: bool = False) -> SavedState | None:
    """The newest state in `folder`, or None.

    Args:
        mapped: tensors stay in the file until they are read (on the CPU), for processes that need few of them.

    Raises:
        StoreError: the file is damaged.
    """
    paths = sorted(folder.glob("step-*.pt"))
    if not paths:
        return None
    try:
        values = torch.load(paths[-1], map_location=device, weights_only=True, mmap=mapped)
    except Exception as error:
        raise StoreError(f"{paths[-1]}: not a readable state ({error}); remove {folder} to start anew") from error
    return SavedState(int(paths[-1].stem.removeprefix("step-")), values)
