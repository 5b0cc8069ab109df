"""Commands that compute run over a fast malloc, others and those of users who set LD_PRELOAD do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from webdancer.fast_malloc import find_library

# Stands for the command line: says what it was started with.
SHOW = """
import sys, types
shown = types.ModuleType("webdancer.cli")
def main():
    import os
    maps = open("/proc/self/maps").read()
    print(sys.argv[1:], os.environ.get("LD_PRELOAD"), any(name in maps for name in ("libtcmalloc", "libjemalloc")))
shown.main = main
sys.modules["webdancer.cli"] = shown
from webdancer.__main__ import main
main()
"""
LIBRARY = find_library()


def shown(tmp_path: Path, *arguments: str, **environment: str) -> str:
    script = tmp_path / "webdancer_shown.py"
    script.write_text(SHOW)
    variables = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | environment
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(LIBRARY is None, reason="neither tcmalloc nor jemalloc is installed")
def test_what_computes_is_started_again_with_the_same_arguments(tmp_path: Path) -> None:
    assert shown(tmp_path, "sft", "a folder", "--config", "x.toml") == (
        f"['sft', 'a folder', '--config', 'x.toml'] {LIBRARY} True"
    )


def test_what_does_not_compute_is_not(tmp_path: Path) -> None:
    assert shown(tmp_path, "search", "folder", "sft") == "['search', 'folder', 'sft'] None False"
    assert shown(tmp_path) == "[] None False"


def test_the_users_own_setting_stays(tmp_path: Path) -> None:
    assert shown(tmp_path, "sft", LD_PRELOAD="") == "['sft']  False"
