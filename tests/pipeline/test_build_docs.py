"""From a real site to training files: python3-doc over HTTP, every role a stand-in behind an OpenAI-compatible server."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from standin.docs_site import install_docs, serve_docs
from standin.server import Troubles, running

from webdancer.calls.ledger import Spent, read_ledger
from webdancer.calls.tape import CallKind
from webdancer.config import (
    Config,
    CrawlSettings,
    EndpointSettings,
    EvalSettings,
    LlmSettings,
    PolicySettings,
    SampleSettings,
    SynthSettings,
)
from webdancer.pipeline.stages import run_pipeline
from webdancer.records import QA, CotMode, EvalResult, QASplit, Trajectory, Verdict, VerdictStage
from webdancer.store import read_records
from webdancer.synth.outcomes import DroppedQA, GroupOutcome

NO_INDEXES = (r"/genindex", r"/py-modindex", r"/contents\.html$", r"/license\.html$", r"\.(?:zip|py|txt)$", r"/_")
"""Pages that list everything: with them, a crawl of few pages holds hardly anything else."""
HOST = "docs.example"
"""A name, so that addresses in prompts, and with them the stand-in's slips, do not change with the port."""
LEDGER_ROLES = {
    "writer": "writer",
    "picker": "rewriter",
    "describer": "rewriter",
    "rewriter": "rewriter",
    "summariser": "summariser",
    "judge": "judge",
    "critic": "critic",
    "agent": "agent",
    "answerer": "agent",
    "teacher": "agent",
}
"""The settings' name of a role that a prompt names; the agent and the answerer are one model, and the teacher is it as well."""


@pytest.fixture(scope="module")
def docs() -> Path:
    folder = install_docs()
    if folder is None:
        pytest.skip("needs Debian's python3-doc: apt-get install -y python3-doc")
    return folder


def settings(address: str, site: str, num_questions: dict[str, int], **crawl: object) -> Config:
    """Every role on one endpoint; nothing is trained."""
    model = "standin-reasoner" if crawl.pop("mode", CotMode.SHORT) is CotMode.LONG else "standin"
    endpoint = EndpointSettings(base_url=f"{address}/v1", model=model, max_concurrent=8, timeout_s=30.0)
    return Config(
        crawl=CrawlSettings.model_validate(
            {
                "urls": (f"http://{HOST}/index.html",),
                "resolve": {HOST: site.removeprefix("http://")},
                "exclude": NO_INDEXES,
                **crawl,
            }
        ),
        llm=LlmSettings(default=endpoint),
        synth=SynthSettings(num_questions=num_questions, max_answer_share=0.25, concurrency=8),
        sample=SampleSettings(
            mode=CotMode.LONG if model == "standin-reasoner" else CotMode.SHORT,
            max_attempts=2,
            sft_share=0.7,
            concurrency=8,
        ),
        eval=EvalSettings(systems=("scribe", "closed_book", "one_search"), concurrency=8),
        policy=PolicySettings(base="none"),
    )


async def counts_of(address: str) -> dict[str, dict[str, int]]:
    async with httpx2.AsyncClient() as client:
        found: dict[str, dict[str, int]] = (await client.get(f"{address}/counts")).json()
        return found


def by_ledger_role(calls: dict[str, int]) -> Counter[str]:
    """The server's counts under the ledger's names of the roles."""
    counts: Counter[str] = Counter()
    for label, num in calls.items():
        counts[LEDGER_ROLES[label.removesuffix("_reask").removesuffix("_forced")]] += num
    return counts


def check_records(run: Path) -> None:
    """Every stage left its records, and they fit together."""
    qas = {qa.id: qa for name in ("qa", "heldout_qa") for qa in read_records(run / f"{name}.jsonl", QA)}
    dropped = list(read_records(run / "qa_dropped.jsonl", DroppedQA))
    written = [c.qa.id for g in read_records(run / "qa_groups.jsonl", GroupOutcome) for c in g.candidates]
    assert sorted(written) == sorted([*qas, *(qa.id for qa in dropped)])
    trajectories = {t.id: t for t in read_records(run / "trajectories.jsonl", Trajectory)}
    asked = {qa.id for qa in qas.values() if qa.split is QASplit.SFT}
    assert {t.qa_id for t in trajectories.values()} == asked
    verdicts = list(read_records(run / "verdicts.jsonl", Verdict))
    fallen = {verdict.trajectory_id for verdict in verdicts if not verdict.keep}
    learnt = {t.id for t in read_records(run / "sft.jsonl", Trajectory)}
    assert learnt == trajectories.keys() - fallen
    for system in ("teacher", "closed_book", "one_search"):
        results = list(read_records(run / "eval" / f"{system}.jsonl", EvalResult))
        assert {r.qa_id for r in results} == {qa.id for qa in qas.values() if qa.split is QASplit.HELDOUT}
    assert json.loads((run / "summary.json").read_text())["qa"]["num_heldout"] == len(results)
    assert (run / "report.html").stat().st_size > 1000


def check_calls(run: Path, counts: dict[str, dict[str, int]]) -> None:
    """The server answered what the ledger says, by role, with the same tokens; and what the records tell of it."""
    spent: dict[str, Spent] = {}
    for account, one in read_ledger([run / "ledger.jsonl"]).items():
        if account.kind is CallKind.CHAT:
            role = LEDGER_ROLES[account.role]
            spent[role] = spent.get(role, Spent()).plus(one)
    assert by_ledger_role(counts["calls"]) == {role: one.calls - one.failed for role, one in spent.items()}
    for kind in ("prompt", "completion"):
        tokens = {label: used.get(kind, 0) for label, used in counts["tokens"].items()}  # type: ignore[attr-defined]
        assert by_ledger_role(tokens) == {role: getattr(one, f"{kind}_tokens") for role, one in spent.items()}
    outcomes = list(read_records(run / "qa_groups.jsonl", GroupOutcome))
    assert counts["calls"]["writer"] == len(outcomes)
    episodes = [
        *read_records(run / "trajectories.jsonl", Trajectory),
        *read_records(run / "eval" / "teacher_trajectories.jsonl", Trajectory),
    ]
    turns = sum(num for label, num in counts["calls"].items() if label.startswith("agent"))
    assert turns == sum(episode.usage.llm_calls for episode in episodes)
    critics = [v for v in read_records(run / "verdicts.jsonl", Verdict) if v.stage is VerdictStage.CRITIC]
    assert counts["calls"]["critic"] == len(critics)


async def test_a_few_pages_of_a_real_site(docs: Path, tmp_path: Path) -> None:
    num_questions = {"count": 2, "multi_hop": 8, "easy_to_hard": 4}
    async with serve_docs(docs) as site, running() as address:
        config = settings(address, site, num_questions, max_pages=110, path_prefixes=("/index", "/library/"))
        await run_pipeline(tmp_path / "run", config)
        counts = await counts_of(address)
    check_records(tmp_path / "run")
    check_calls(tmp_path / "run", counts)
    kinds = Counter(qa.kind for name in ("qa", "heldout_qa") for qa in read_records(tmp_path / f"run/{name}.jsonl", QA))
    assert kinds["multi_hop"] == 8
    assert len(list(read_records(tmp_path / "run" / "sft.jsonl", Trajectory))) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("mode", [CotMode.SHORT, CotMode.LONG])
async def test_a_whole_site_while_calls_fail(docs: Path, tmp_path: Path, mode: CotMode) -> None:
    """What the run is told is right in spite of rate limits, outages and torn connections."""
    troubles = Troubles(latency_s=0.005, rate_429=0.02, rate_5xx=0.02, rate_dropped=0.01, rate_slow=0.01, slow_s=0.3)
    num_questions = {"count": 12, "multi_hop": 24, "intersection": 6, "easy_to_hard": 16}
    async with serve_docs(docs) as site, running(troubles) as address:
        await run_pipeline(tmp_path / "run", settings(address, site, num_questions, max_pages=600, mode=mode))
        counts = await counts_of(address)
    check_records(tmp_path / "run")
    check_calls(tmp_path / "run", counts)
    assert set(counts["failures"]) == {"429", "5xx", "dropped"}
    qas = [qa for name in ("qa", "heldout_qa") for qa in read_records(tmp_path / f"run/{name}.jsonl", QA)]
    kinds = Counter(str(qa.kind) for qa in qas)
    assert all(kinds[kind] >= 0.6 * aim for kind, aim in num_questions.items()), kinds
    kept = {t.qa_id for t in read_records(tmp_path / "run" / "sft.jsonl", Trajectory)}
    asked = {qa.id for qa in qas if qa.split is QASplit.SFT}
    assert 0.6 * len(asked) < len(kept) <= len(asked)
    reasons = {v.reason for v in read_records(tmp_path / "run" / "verdicts.jsonl", Verdict) if not v.keep}
    assert len(reasons) >= 3


@contextmanager
def standin_process() -> Iterator[str]:
    """The stand-in as a program of its own, as a user's server is."""
    command = [sys.executable, "-m", "tests.standin", "--port", "0", "--rate-429", "0.02", "--latency-s", "0.005"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.terminate()


SMALL_BUILD = """
[crawl]
max_pages = 200
path_prefixes = ["/index", "/library/", "/tutorial/"]
exclude = ['/_']

[llm.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"

[synth]
concurrency = 8

[synth.num_questions]
count = 3
multi_hop = 12
intersection = 0
easy_to_hard = 8

[sample]
max_attempts = 2

[eval]
systems = ["scribe", "closed_book", "one_search"]

[policy]
base = "none"
"""


@pytest.mark.slow
async def test_build_as_a_user_types_it(docs: Path, tmp_path: Path) -> None:
    """The command, the model and the site in processes of their own; what was forecast by the pilot comes about."""
    out, config = tmp_path / "run", tmp_path / "small.toml"
    config.write_text(SMALL_BUILD)
    with standin_process() as address:
        async with serve_docs(docs) as site:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "webdancer", "build", f"{site}/index.html", "--out", str(out)),
                *("--config", str(config), "--base-url", f"{address}/v1", "--model", "standin", "--max-calls", "3000"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
        counts = await counts_of(address)
    assert process.returncode == 0, output.decode()
    check_records(out)
    calls = sum(counts["calls"].values())
    forecast = json.loads((out / "forecast.json").read_text())
    assert calls == forecast["pilot_cost"]["llm_calls"] + forecast["actual"]["llm_calls"]
    assert 0.5 < forecast["pilot"]["llm_calls"] / forecast["actual"]["llm_calls"] < 2
    learnt = len(list(read_records(out / "sft.jsonl", Trajectory)))
    assert learnt >= 5
    for name in ("webdancer", "chatml", "openai", "sharegpt"):
        assert len((out / "export" / name / "sft.jsonl").read_text().splitlines()) == learnt
