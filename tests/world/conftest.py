"""One embedded web of 450 pages and its facts, shared by the tests of this folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from webdancer.world.server import World, write_facts


@pytest.fixture(scope="session")
def world() -> World:
    return World(7, 510)


@pytest.fixture(scope="session")
def rows(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path: Path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    write_facts(world, path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
