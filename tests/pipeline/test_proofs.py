"""The questions of a whole run, proved from the fact graph: right, with no other answer, and needing several pages."""

from collections import Counter
from pathlib import Path

import pytest
from proofs import Facts, faults_of_question, load_facts

from webdancer.config import Config
from webdancer.pipeline.stages import run_pipeline
from webdancer.records import QA, QAKind
from webdancer.settings_file import load_config
from webdancer.store import read_records
from webdancer.world.facts import World
from webdancer.world.server import write_facts

SMALL = Path(__file__).parent / "small.toml"


async def synthesised(folder: Path, config: Config) -> list[tuple[Facts, list[QA]]]:
    """For the training web and the held-out web: its facts, and the questions that a run keeps."""
    await run_pipeline(folder, config, until="synth")
    world = config.world
    found = []
    for seed, pages, file in (
        (world.seed, world.num_pages, "qa.jsonl"),
        (world.heldout_seed, world.num_heldout_pages, "heldout_qa.jsonl"),
    ):
        write_facts(World(seed, pages), folder / f"facts{seed}.jsonl")
        found.append((load_facts(folder / f"facts{seed}.jsonl"), list(read_records(folder / file, QA))))
    return found


async def test_every_question_of_a_small_run_is_proved(tmp_path: Path) -> None:
    for facts, qas in await synthesised(tmp_path / "run", load_config(SMALL)):
        assert len(qas) > 10
        assert {qa.id: faults_of_question(facts, qa.question, qa.answer) for qa in qas} == {qa.id: [] for qa in qas}


async def test_a_wrong_answer_is_not_proved(tmp_path: Path) -> None:
    for facts, qas in await synthesised(tmp_path / "run", load_config(SMALL)):
        for qa, other in zip(qas, qas[1:] + qas[:1], strict=True):
            if other.answer != qa.answer:
                assert faults_of_question(facts, qa.question, other.answer)


@pytest.mark.slow
async def test_at_least_98_percent_of_the_default_run_are_proved_kind_by_kind(tmp_path: Path) -> None:
    num_asked: Counter[QAKind] = Counter()
    num_proved: Counter[QAKind] = Counter()
    one_page_is_enough = []
    for facts, qas in await synthesised(tmp_path / "run", Config()):
        for qa in qas:
            faults = faults_of_question(facts, qa.question, qa.answer)
            num_asked[qa.kind] += 1
            num_proved[qa.kind] += not faults
            one_page_is_enough += [qa.id for fault in faults if fault.startswith("one page")]
    print({str(kind): f"{num_proved[kind]} of {num_asked[kind]}" for kind in QAKind})
    assert all(num_asked[kind] >= 150 for kind in QAKind)
    assert all(num_proved[kind] >= 0.98 * num_asked[kind] for kind in QAKind)
    assert one_page_is_enough == []
