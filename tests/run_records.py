"""The records of a run as the tests compare them: sorted by id, without times."""

import hashlib
import json
from pathlib import Path

from pydantic import JsonValue

from webdancer.web.snapshot import Snapshot

RECORD_FILES = (
    "qa.jsonl",
    "qa_lineage.jsonl",
    "qa_dropped.jsonl",
    "heldout_qa.jsonl",
    "trajectories.jsonl",
    "verdicts.jsonl",
    "sft.jsonl",
    "rl_qa.jsonl",
)
TIMES = {"seconds", "fetched_at"}


def without_times(value: JsonValue) -> JsonValue:
    """The value without the fields that hold times, at any depth."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def load_run(path: Path) -> dict[str, list[str]]:
    """File name → its records, each as one line of JSON. Snapshots appear as their pages
    with aliases resolved, checkpoints as a digest of their weights."""
    files = [path / name for name in RECORD_FILES] + sorted((path / "eval").glob("*.jsonl"))
    loaded = {}
    for file in files:
        rows = [without_times(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        loaded[str(file.relative_to(path))] = sorted(json.dumps(row, sort_keys=True) for row in rows)
    for name in ("sft", "rl"):
        weights = path / name / "model.safetensors"
        if weights.exists():
            loaded[name] = [hashlib.sha256(weights.read_bytes()).hexdigest()]
    for name in ("snapshot", "heldout_snapshot"):
        with Snapshot.open(path / name) as snapshot:
            pages = [snapshot.page(url) for url in snapshot.urls()]
            loaded[name] = [page.model_dump_json(exclude={"fetched_at"}) for page in pages if page]
    return loaded
