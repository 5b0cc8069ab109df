"""Faults planted into the released trajectories: each kind falls, where and why it must, and the clean ones stay."""

import json
from pathlib import Path
from random import Random

import pytest
from planted_faults import PLANTS, plant, wrong_answer

from webdancer.config import FunnelSettings
from webdancer.records import QA, QAKind, Trajectory, Verdict
from webdancer.scribe.model import Scribe
from webdancer.store import read_records
from webdancer.trajectories.funnel import run_funnel
from webdancer.trajectories.import_release import import_webdancer

SAMPLES = Path(__file__).parents[3] / "shared/data/webdancer-samples/sample_traj.jsonl"
pytestmark = pytest.mark.skipif(not SAMPLES.exists(), reason="the released samples are not at hand")
SETTINGS = FunnelSettings(min_actions=1, use_critic=False)
"""Nine in ten released trajectories make one call; too few actions is no fault of theirs."""


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> list[Trajectory]:
    out = tmp_path_factory.mktemp("released")
    import_webdancer(SAMPLES, out)
    return list(read_records(out / "trajectories.jsonl", Trajectory))


async def last_verdicts(trajectories: list[Trajectory], clean: list[Trajectory], path: Path) -> dict[str, Verdict]:
    """The last verdict on each; the reference of a question is the released answer, so the judge has only to compare."""
    qas = {
        t.id: QA(id=t.id, question=t.question, answer=t.answer or "", kind=QAKind.MULTI_HOP, evidence_urls=())
        for t in clean
    }
    own = [t.model_copy(update={"qa_id": t.id.split("+")[0]}) for t in trajectories]
    await run_funnel(own, qas, judge_model=Scribe(), critic_model=None, settings=SETTINGS, out=path)
    return {verdict.trajectory_id: verdict for verdict in read_records(path, Verdict)}


async def test_clean_trajectories_stay(clean, tmp_path):
    verdicts = await last_verdicts(clean, clean, tmp_path / "v.jsonl")
    assert len(verdicts) == 100
    assert [verdict for verdict in verdicts.values() if not verdict.keep] == []


@pytest.mark.parametrize("kind", PLANTS)
async def test_every_planted_fault_falls_at_its_stage_with_its_reason(kind, clean, tmp_path):
    planted = [plant(t, kind, wrong_answer=wrong_answer(t, clean, Random(t.id))) for t in clean]
    assert all(
        after.steps != before.steps or after.answer != before.answer
        for before, after in zip(clean, planted, strict=True)
    )
    verdicts = await last_verdicts(planted, clean, tmp_path / "v.jsonl")
    assert len(verdicts) == 100
    wrong = [
        v
        for v in verdicts.values()
        if v.keep or v.stage is not PLANTS[kind].stage or v.reason not in PLANTS[kind].reasons
    ]
    assert wrong == [], json.dumps([v.model_dump(mode="json") for v in wrong[:3]], indent=1)
