"""Starts the program again over a malloc that suits tensors, where the system has one.

Training on a CPU allocates and frees thousands of tensors of all sizes a second. glibc's malloc (2.36 measured) spends a quarter
of the main thread's time in looking for room among its fragments; tcmalloc and jemalloc do not. They can only take its place
while a program is loaded, hence the new start. docs/log.md has the figures.
"""

import os
import platform
import sys
from pathlib import Path

_NAMES = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libjemalloc.so.2")
"""Fastest first."""


def preload() -> None:
    """Run this very command again with such a malloc, unless LD_PRELOAD is set (be it to nothing), or there is none."""
    library = find_library()
    if "LD_PRELOAD" not in os.environ and library is not None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "LD_PRELOAD": str(library)})


def find_library() -> Path | None:
    """The system's or the environment's tcmalloc or jemalloc."""
    if sys.platform != "linux":
        return None
    triple = f"{platform.machine()}-linux-gnu"
    folders = (Path(sys.prefix, "lib"), *(Path("/usr/lib", name) for name in (triple, "")), Path("/usr/lib64"))
    found = (folder / name for name in _NAMES for folder in (*folders, Path("/usr/local/lib")))
    return next((path for path in found if path.is_file()), None)
