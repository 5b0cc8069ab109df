"""The scribe on the embedded web, against the fact graph: questions are right and need several pages, answers are right."""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from embedded_pages import Embedded
from proofs import faults_of_question

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings
from webdancer.judge.match import exact_match
from webdancer.llm.prompts import fill_prompt, format_pages
from webdancer.llm.protocol import Message, Sampling
from webdancer.records import CotMode, QAKind
from webdancer.scribe.model import Scribe
from webdancer.synth.groups import build_graph, walk_groups
from webdancer.web.search import SnapshotReader, SnapshotSearch
from webdancer.web.snapshot import Snapshot, SnapshotWriter

KINDS = ["count", "multi_hop", "intersection", "simple"]
NUM_GROUPS = 250


@pytest.fixture(scope="module")
def snapshot(embedded: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    folder: Path = tmp_path_factory.mktemp("scribe") / "snapshot"
    with SnapshotWriter(folder) as writer:
        for url in embedded.urls():
            page = embedded.pages[url]
            content_hash = hashlib.sha256(url.encode()).hexdigest()
            body = page.text.encode()
            writer.add(page.model_copy(update={"content_hash": content_hash}), status=200, headers=[], body=body)
    with Snapshot.open(folder) as opened:
        yield opened


async def written(embedded: Embedded, kind: str) -> list[tuple[str, str]]:
    """(question, answer) of what the writer makes of a few hundred page groups."""
    walk = walk_groups(build_graph(embedded), QAKind("easy_to_hard" if kind == "simple" else kind), size=4, seed=0)
    questions = []
    for group in islice(walk, NUM_GROUPS):
        triples = [(u, embedded.pages[u].title, embedded.pages[u].text) for u in group.urls]
        prompt = fill_prompt("write_questions", kind=kind, num_questions="2", pages=format_pages(triples))
        reply = json.loads((await Scribe().chat([Message("user", prompt)], Sampling(seed=1))).content)
        questions += [(q["question"], q["answer"]) for q in reply["questions"]]
    return questions


@pytest.mark.parametrize("kind", KINDS)
async def test_written_questions_are_right_and_need_several_pages(embedded: Embedded, kind: str) -> None:
    questions = await written(embedded, kind)
    assert len(questions) >= 40
    faulty = {
        q: f for q, a in questions if (f := faults_of_question(embedded.facts, q, a, needs_several=kind != "simple"))
    }
    assert len(faulty) <= 0.02 * len(questions), faulty


@pytest.mark.parametrize("kind", KINDS)
async def test_the_searcher_answers_what_the_writer_asks(embedded: Embedded, snapshot: Snapshot, kind: str) -> None:
    questions = (await written(embedded, kind))[:40]
    settings = AgentSettings()
    toolbox = Toolbox(SnapshotSearch(snapshot), SnapshotReader(snapshot), Scribe(), settings)
    wrong = []
    for number, (question, answer) in enumerate(questions):
        trajectory = await run_episode(
            Scribe(),
            toolbox,
            trajectory_id=str(number),
            qa_id=str(number),
            question=question,
            settings=settings,
            mode=CotMode.SHORT,
            sampling=Sampling(temperature=0.6),
            seed=number,
        )
        if not exact_match(answer, trajectory.answer or ""):
            wrong.append((question, answer, trajectory.answer))
    assert len(wrong) <= 0.03 * len(questions), wrong
