"""Whole runs with training on a small web and with a policy of random weights: recorded, repeated, killed and asked."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_records import load_run
from tiny_checkpoint import AGENT_TEXTS, build_checkpoint

from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.config import Config, SftSettings
from webdancer.errors import ConfigError
from webdancer.pipeline.agents import AgentChoice
from webdancer.pipeline.asking import ask_question
from webdancer.pipeline.serving import serve_model
from webdancer.pipeline.stages import run_pipeline, run_stage
from webdancer.records import QA, EvalResult, Status, Trajectory
from webdancer.serve.guard import Access
from webdancer.settings_file import load_config
from webdancer.store import read_records
from webdancer.train.sft import train_sft

MICRO = Path(__file__).parent / "micro.toml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run_until(out: Path, sign_of_life: str) -> subprocess.Popen[str]:
    """A run by the command, going on, at the moment when a file that fits the pattern is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "webdancer", "run", str(out)], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 120
    while not list(out.glob(sign_of_life)) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before"
    return process


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The settings with a base of random weights."""
    base = build_checkpoint(tmp_path_factory.mktemp("settings") / "random", texts=AGENT_TEXTS, vocab_size=700)
    config = load_config(MICRO)
    return config.model_copy(update={"policy": config.policy.model_copy(update={"base": str(base)})})


@pytest.fixture(scope="module")
def sampled(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that training needs."""
    out = tmp_path_factory.mktemp("run") / "sampled"
    asyncio.run(run_pipeline(out, settings, until="sample"))
    return out


@pytest.fixture(scope="module")
def finished(sampled: Path) -> Path:
    out = sampled.with_name("finished")
    shutil.copytree(sampled, out)
    asyncio.run(run_pipeline(out, None))
    return out


def test_a_run_trains_and_evaluates_the_checkpoints(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert list(summary["eval"]) == ["base", "sft", "rl", "scribe", "guess"]
    for system in ("base", "sft", "rl"):
        entry = summary["eval"][system]
        assert entry["num_questions"] == summary["qa"]["num_heldout"] == 6
        assert entry["mean_tokens"] > 100
        assert entry["mean_turns"] >= 1
        assert sum(part["num_questions"] for part in entry["by_hops"].values()) == 6
        assert entry["cost"]["sampled_tokens"] > 0
        assert entry["cost"]["prompt_tokens"] > entry["cost"]["cached_tokens"] >= 0
    assert summary["eval"]["scribe"]["mean_actions"] > 1
    assert set(summary["seconds"]) >= {"crawl", "synth", "sample", "sft", "rl", "eval"}
    num_lines = (finished / "sft" / "metrics.jsonl").read_text().count("\n")
    assert summary["training"]["sft"]["step"] == num_lines > 1
    assert summary["training"]["rl"]["rollouts"] == 4
    for stage in ("sft", "rl"):
        assert (finished / stage / "config.json").exists()
        assert (finished / stage / "tokenizer.json").exists()
    report = (finished / "report.html").read_text()
    assert "wrong all along" in report
    assert 'aria-label="SFT: loss"' in report


def test_results_know_hops_turns_and_tokens_and_no_answer_is_demanded_of_a_policy(finished: Path) -> None:
    hops = {qa.id: len(qa.evidence_urls) for qa in read_records(finished / "heldout_qa.jsonl", QA)}
    for system in ("base", "rl", "scribe"):
        results = list(read_records(finished / "eval" / f"{system}.jsonl", EvalResult))
        assert {result.qa_id: result.num_hops for result in results} == hops
        episodes = {t.qa_id: t for t in read_records(finished / "eval" / f"{system}_trajectories.jsonl", Trajectory)}
        assert {r.qa_id: r.num_turns for r in results} == {id: len(t.steps) for id, t in episodes.items()}
        assert {trajectory.model for trajectory in episodes.values()} == {system}
        if system != "scribe":  # whose endpoint counts no tokens
            assert all(result.num_tokens > 100 for result in results)
            assert Status.FORCED_ANSWER not in {result.status for result in results}


async def test_a_finished_run_is_not_trained_again(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = load_run(finished)
    await run_pipeline(finished, None)
    assert capfd.readouterr().err.count("done before") == 6
    assert load_run(finished) == before


async def test_stages_one_by_one_give_the_same_run(finished: Path, sampled: Path, tmp_path: Path) -> None:
    out = tmp_path / "staged"
    shutil.copytree(sampled, out)
    with pytest.raises(ConfigError, match="the stage 'sft' must be done first"):
        await run_stage("rl", out, None)
    for stage in ("sft", "rl", "eval", "report"):
        await run_stage(stage, out, None)
    assert load_run(out) == load_run(finished)


@pytest.mark.parametrize("sign_of_life", ["sft/metrics.jsonl", "rl/groups/*", "eval/sft.jsonl"])
def test_a_run_killed_while_it_trains_ends_with_the_same_records(
    finished: Path, sampled: Path, tmp_path: Path, sign_of_life: str
) -> None:
    out = tmp_path / "killed"
    shutil.copytree(sampled, out)
    process = run_until(out, sign_of_life)
    process.kill()
    process.communicate()
    assert list(out.glob(sign_of_life))
    asyncio.run(run_pipeline(out, None))
    assert load_run(out) == load_run(finished)


def test_ctrl_c_while_it_trains_says_how_to_go_on(sampled: Path, settings: Config, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    shutil.copytree(sampled, out)
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"num_epochs": 2.0', '"num_epochs": 20000.0'))
    process = run_until(out, "sft/metrics.jsonl")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"webdancer run {out}" in stderr
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_training_under_accelerate_launch_by_the_same_commands(sampled: Path, tmp_path: Path) -> None:
    out = tmp_path / "launched"
    shutil.copytree(sampled, out)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    launch += ["-m", "webdancer"]
    for stage in ("sft", "rl"):
        done = subprocess.run(
            [*launch, stage, str(out)], capture_output=True, text=True, check=False, timeout=300, env=ENVIRONMENT
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines().count(stage) == 1, "each process tells of the stage"
        steps = [json.loads(line)["step"] for line in (out / stage / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(1, len(steps) + 1))
        assert json.loads((out / "manifest.json").read_text())["stages"][stage]["done"]
    asyncio.run(run_pipeline(out, None))
    assert json.loads((out / "summary.json").read_text())["eval"]["rl"]["num_questions"] == 6


@pytest.fixture(scope="module")
def answering(sampled: Path, settings: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trajectory]:
    """A checkpoint that knows one trajectory by heart, with visits in it."""
    known = max(read_records(sampled / "sft.jsonl", Trajectory), key=lambda t: sum(s.tool == "visit" for s in t.steps))
    steps = [step.model_dump_json() for step in known.steps]
    out = tmp_path_factory.mktemp("answering") / "run"
    shutil.copytree(sampled, out)
    base = build_checkpoint(out / "base", texts=[*AGENT_TEXTS, known.question, *steps], vocab_size=700)
    train_sft(
        [known],
        base=base,
        out=out / "sft",
        settings=SftSettings(num_epochs=400, learning_rate=1e-2, validation_share=0.0),
        policy=settings.policy,
        prompt=settings.agent.prompt,
        schemas=TOOL_SCHEMAS,
        seed=0,
    )
    return out, known


def test_ask_tells_answer_steps_and_sources_of_a_checkpoint_here_and_served(answering: tuple[Path, Trajectory]) -> None:
    run, known = answering

    def ask(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "webdancer", "ask", known.question, "--config", str(MICRO), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=ENVIRONMENT)

    def check(done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{known.answer}\n"
        visited = [str(step.arguments["url"]) for step in known.steps if step.tool == "visit"]
        sources = done.stderr.split("Sources:\n")[1].splitlines()
        assert [line.strip() for line in sources if line.startswith("    http")] == list(dict.fromkeys(visited))
        assert known.steps[0].thought[:30] in done.stderr

    check(ask("--model", str(run / "sft")))
    server = subprocess.Popen(
        [sys.executable, "-m", "webdancer", "serve", "--model", str(run / "sft"), "--port", "0", "--config", str(MICRO)],
        stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    try:
        assert server.stderr is not None
        told = ""
        while "/v1" not in told:
            line = server.stderr.readline()
            assert line, told
            told += line
        url = re.search(r"http://\S+/v1", told)
        assert url, told
        check(ask("--model", url[0], "--run", str(run)))
    finally:
        server.terminate()
        server.wait(timeout=20)
        server.stderr.close()


async def test_a_checkpoint_answers_the_same_in_process_and_served(
    finished: Path, settings: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    question = next(read_records(finished / "heldout_qa.jsonl", QA)).question
    snapshot, checkpoint = finished / "heldout_snapshot", str(finished / "rl")

    async def ask(model: str, *, show_steps: bool) -> Trajectory:
        return await ask_question(question, AgentChoice(settings, snapshot, model), show_steps=show_steps)

    here = await ask(checkpoint, show_steps=True)
    shown = capfd.readouterr().err
    server = asyncio.create_task(serve_model(checkpoint, access=Access(), port=0))
    try:
        err = ""
        while "Serving rl at " not in err:
            await asyncio.sleep(0.05)
            assert not server.done(), server
            err += capfd.readouterr().err.replace("\n", " ")
        there = await ask(err.split(" at ")[1].split()[0], show_steps=False)
    finally:
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server
    assert here.steps
    assert [step.raw for step in here.steps] == [step.raw for step in there.steps]
    assert here.status == there.status
    assert ("No answer: " in shown) == (here.answer is None)


async def test_a_model_that_is_not_there_is_named(finished: Path, settings: Config) -> None:
    for model, message in (
        (str(finished / "eval"), "eval: no checkpoint here"),
        ("http://127.0.0.1:9/v1", "no OpenAI-compatible API answers there"),
    ):
        with pytest.raises(ConfigError, match=message):
            await ask_question("Who?", AgentChoice(settings, finished / "snapshot", model), show_steps=False)


async def test_a_base_that_cannot_be_trained_is_named_before_anything_is_crawled(tmp_path: Path) -> None:
    build_checkpoint(tmp_path / "bert", texts=AGENT_TEXTS, vocab_size=700)
    values = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps(values | {"model_type": "bert"}))
    config = load_config(MICRO)
    shutil.copytree(tmp_path / "bert", tmp_path / "new")
    (tmp_path / "new" / "config.json").write_text(json.dumps(values | {"model_type": "foo9"}))
    for base, message in (
        ("bert", "is of the architecture 'bert'"),
        ("absent", "neither 'tiny', nor a folder"),
        ("new", "new has no config.json that transformers can read: .*foo9"),
    ):
        update = {"base": str(tmp_path / base)}
        here = config.model_copy(update={"policy": config.policy.model_copy(update=update)})
        with pytest.raises(ConfigError, match=message):
            await run_pipeline(tmp_path / "run", here)
        assert not (tmp_path / "run" / "snapshot").exists()
        shutil.rmtree(tmp_path / "run")
