"""Rooms import only from rooms before them, and nothing that does not train loads torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "webdancer"
ROOMS = [
    "fast_malloc", "collector", "records", "errors", "config", "settings_file", "keys", "store", "retries", "llm", "judge", "web",
    "calls", "world", "agent", "scribe", "synth", "trajectories", "train", "eval", "serve", "pipeline", "cli",
]  # fmt: skip
BASE = {"records", "errors", "config", "keys", "store", "retries"}
ALLOWED_ONLY = {"world": BASE, "web": BASE, "llm": BASE, "scribe": {*BASE, "llm", "judge", "agent"}}
FORBIDDEN = {
    **{
        room: {"scribe", "world"}
        for room in ("agent", "synth", "trajectories", "train", "eval", "judge", "llm", "web", "calls")
    },
    "serve": {"world"},
}


def imports_of(path: Path) -> set[str]:
    """Rooms of ours that a module imports."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "webdancer":
                names = [f"webdancer.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("webdancer.")}
    return rooms - {"__version__"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("__init__", "__main__"):
            found.append((parts[0], path))
    return found


@pytest.mark.parametrize(
    ("room", "path"), modules(), ids=lambda value: str(value) if isinstance(value, str) else value.name
)
def test_rooms_import_only_from_earlier_rooms(room: str, path: Path) -> None:
    assert room in ROOMS, f"{path}: {room} is not in the list of rooms"
    for other in imports_of(path) - {room}:
        assert ROOMS.index(other) < ROOMS.index(room), f"{path} imports {other}, which comes after {room}"
        assert other in ALLOWED_ONLY.get(room, set(ROOMS)), f"{path}: {room} may not import {other}"
        assert other not in FORBIDDEN.get(room, set()), f"{path}: {room} may not know {other}"


def test_nothing_that_does_not_train_loads_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, webdancer\n"
        "for m in pkgutil.walk_packages(webdancer.__path__, 'webdancer.'):\n"
        "    if '.train' not in m.name and '__main__' not in m.name: importlib.import_module(m.name)\n"
        "assert 'webdancer.cli' in sys.modules\n"
        "print([n for n in ('torch', 'transformers') if n in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
