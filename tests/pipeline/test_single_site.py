"""A run on one site of the user's own: its questions are parted so that no answer chain is on both sides."""

import json
from pathlib import Path

from webdancer.config import Config, CrawlSettings
from webdancer.pipeline.embedded import serve_embedded_web
from webdancer.pipeline.stages import run_pipeline
from webdancer.records import QA
from webdancer.settings_file import load_config
from webdancer.store import read_records
from webdancer.world.facts import World

SMALL = Path(__file__).parent / "small.toml"


def pages_of(qas: list[QA]) -> set[str]:
    return {url for qa in qas for url in qa.evidence_urls}


async def test_held_out_questions_of_one_site_share_only_hub_pages(tmp_path: Path) -> None:
    out, world = tmp_path / "run", World(5, 680)
    num_questions = {"count": 15, "multi_hop": 25, "intersection": 10, "easy_to_hard": 25}
    async with serve_embedded_web(world, access_log=tmp_path / "access.jsonl") as resolve:
        config: Config = load_config(SMALL).model_copy(
            update={"crawl": CrawlSettings(urls=world.roots(), resolve=resolve)}
        )
        config = config.model_copy(update={"synth": config.synth.model_copy(update={"num_questions": num_questions})})
        await run_pipeline(out, config)
    train, heldout = (list(read_records(out / name, QA)) for name in ("qa.jsonl", "heldout_qa.jsonl"))
    hubs = set(json.loads((out / "hub_pages.json").read_text()))
    assert len(heldout) >= 5
    assert len(train) > len(heldout)
    assert pages_of(train) & pages_of(heldout) == hubs
    assert len(hubs) < len(pages_of(heldout)) / 2
    answers = {qa.answer for qa in train if not qa.answer.isdecimal()}
    assert not answers & {qa.answer for qa in heldout}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["eval"]["scribe"]["num_questions"] == summary["qa"]["num_heldout"] == len(heldout)
