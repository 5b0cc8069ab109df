"""What each part of the recipe is worth: a finished run with one thing changed at a time, on questions it never saw.

    python -m benchmarks.ablations --run runs/quickstart --out runs/ablations [--only NAME …]

RUN is a finished run of the embedded web. Every arm starts from what RUN has (questions, trajectories, snapshots, and its SFT
checkpoint where RL is what changes), trains with RUN's settings but for the one named, and answers RUN's held-out questions
greedily. Arms of RL take the same number of steps; the seconds and rollouts that these took stand beside the scores.
Generalisation is shown on three sets: new questions about the web that was trained on, the held-out web, and held-out
questions that rest on one page more than any question trained on.

An arm that is done is not done again. Scores are normalised exact match with 95 % Wilson intervals, one training seed each:
the intervals are those of the questions, not of the training. Writes OUT/ablations.md and OUT/ablations.json.
"""

import argparse
import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from webdancer.config import Config
from webdancer.eval.metrics import Score, score
from webdancer.fast_malloc import preload
from webdancer.pipeline.behaviour import behaviour
from webdancer.pipeline.evaluating import evaluate_systems
from webdancer.pipeline.policies import checkpoint_of
from webdancer.pipeline.run_folder import RunFolder
from webdancer.pipeline.stages import run_pipeline, settings_of
from webdancer.pipeline.training import rl_stage, sft_stage
from webdancer.records import QA, CotMode, EvalResult, QAKind, Trajectory
from webdancer.store import read_records, write_atomic, write_json

NUM_TRAINING_WEB = 400
MANY_REWRITES = 5
"""Enough for questions that rest on more pages than those of the default run."""


class QuestionSet(NamedTuple):
    """Questions and the snapshot of their web."""

    qas: list[QA]
    snapshot: Path


class Arm(NamedTuple):
    """One checkpoint to be scored: what it is called, what it shows, and how it comes to be."""

    name: str
    shows: str
    train: Callable[["Study", Path], Any]
    """Trains in a folder of the arm's own and returns (or awaits to) the folder of the checkpoint."""
    mode: str = "short"


class Study:
    """The run that is varied, and the folder of what comes out."""

    def __init__(self, run: Path, out: Path) -> None:
        config = settings_of(run)
        if config is None:
            raise SystemExit(f"{run} holds no run; make one with: webdancer run {run}")
        self.run, self.out, self.config = run, out, config

    def folder(self, name: str) -> Path:
        """A folder with the run's data, as the stages of training expect it."""
        path = self.out / "arms" / name
        path.mkdir(parents=True, exist_ok=True)
        for file in ("sft.jsonl", "rl_qa.jsonl"):
            if not (path / file).exists():
                shutil.copy(self.run / file, path / file)
        _link(self.run / "snapshot", path / "snapshot")
        return path

    def with_rl(self, **update: object) -> Config:
        """The run's settings with other settings of RL."""
        return self.config.model_copy(update={"rl": self.config.rl.model_copy(update=update)})


async def _rl(study: Study, path: Path, start: Path, **update: object) -> Path:
    """RL from the checkpoint `start`."""
    _link(start, path / "sft")
    run = RunFolder(path, study.with_rl(**update))
    if not run.is_done("rl"):
        with run.stage("rl"):
            await rl_stage(run)
    return path / "rl"


async def _sft_unfiltered(study: Study, path: Path) -> Path:
    """SFT on the first attempt, right or wrong, at each of the questions that have a trajectory in sft.jsonl."""
    asked = {trajectory.qa_id for trajectory in read_records(study.run / "sft.jsonl", Trajectory)}
    first: dict[str, Trajectory] = {}
    for trajectory in read_records(study.run / "trajectories.jsonl", Trajectory):
        if trajectory.qa_id in asked:
            first.setdefault(trajectory.qa_id, trajectory)
    lines = "".join(trajectory.model_dump_json() + "\n" for trajectory in first.values())
    write_atomic(path / "sft.jsonl", lines)
    run = RunFolder(path, study.config)
    if not run.is_done("sft"):
        with run.stage("sft"):
            await sft_stage(run)
    return path / "sft"


async def _long(study: Study, path: Path, *, stage: str) -> Path:
    """The stages anew with long chains of thought; `path` is not used, the arms share a run."""
    path = study.out / "arms" / "long_run"
    await run_pipeline(path, _long_config(study), until=stage)
    return path / stage


def _long_config(study: Study) -> Config:
    config = study.config
    return config.model_copy(update={"sample": config.sample.model_copy(update={"mode": CotMode.LONG})})


def _arms(study: Study) -> Iterator[Arm]:
    base, sft = checkpoint_of("base", study.run, study.config), study.run / "sft"
    clip = study.config.rl.clip_low
    yield Arm("base", "before training", lambda s, p: base)
    yield Arm("sft", "the run's SFT", lambda s, p: sft)
    yield Arm("rl", "the run's SFT and DAPO", lambda s, p: s.run / "rl")
    yield Arm("sft_unfiltered", "SFT on first attempts, right or wrong", _sft_unfiltered)
    yield Arm("rl_static", "DAPO without dynamic sampling", lambda s, p: _rl(s, p, sft, dynamic_sampling=False))
    yield Arm("rl_symmetric", f"DAPO with both clips at {clip}", lambda s, p: _rl(s, p, sft, clip_high=clip))
    yield Arm("rl_from_base", "DAPO without SFT before it", lambda s, p: _rl(s, p, base))
    yield Arm(
        "rl_from_base_static",
        "DAPO without SFT, without dynamic sampling",
        lambda s, p: _rl(s, p, base, dynamic_sampling=False),
    )
    yield Arm("sft_long", "SFT with long thoughts", lambda s, p: _long(s, p, stage="sft"), "long")
    yield Arm("rl_long", "SFT and DAPO with long thoughts", lambda s, p: _long(s, p, stage="rl"), "long")


async def _question_sets(study: Study) -> dict[str, QuestionSet]:
    """The three sets of questions; no question of the run is in one but the held-out ones of the run itself."""
    run, world = study.run, study.config.world
    asked = {qa.question for file in ("qa.jsonl", "heldout_qa.jsonl") for qa in read_records(run / file, QA)}
    trained = [qa for file in ("qa.jsonl",) for qa in read_records(run / file, QA)]
    most_pages = max(len(qa.evidence_urls) for qa in trained)
    seen = await _more_questions(study, "training_web", world.seed, world.num_pages)
    deep = await _more_questions(study, "deeper", world.heldout_seed, world.num_heldout_pages)
    return {
        "new_web": QuestionSet(list(read_records(run / "heldout_qa.jsonl", QA)), run / "heldout_snapshot"),
        "training_web": QuestionSet(
            [qa for qa in seen.qas if qa.question not in asked and len(qa.evidence_urls) <= most_pages],
            seen.snapshot,
        ),
        "one_page_more": QuestionSet([qa for qa in deep.qas if len(qa.evidence_urls) == most_pages + 1], deep.snapshot),
    }


async def _more_questions(study: Study, name: str, world_seed: int, num_pages: int) -> QuestionSet:
    """Other questions about a web, written as the run's held-out questions are."""
    config, path = study.config, study.out / "questions" / name
    few = dict.fromkeys(("count", "multi_hop", "intersection", "easy_to_hard"), 1)
    each = NUM_TRAINING_WEB // 4
    wanted = {"count": 0, "multi_hop": 300, "intersection": 0, "easy_to_hard": 1500} if name == "deeper" else None
    update: dict[str, object] = {
        "num_questions": few,
        "num_heldout_questions": wanted
        or {**dict.fromkeys(few, each), "count": config.synth.num_heldout_questions["count"]},
    }
    if name == "deeper":
        update["max_rewrites"] = MANY_REWRITES
    world = {"seed": 101, "num_pages": 680, "heldout_seed": world_seed, "num_heldout_pages": num_pages}
    settings = Config.model_validate(
        config.model_dump(mode="python")
        | {
            "seed": config.seed + 1000,
            "world": config.world.model_dump() | world,
            "synth": config.synth.model_dump() | update,
        }
    )
    await run_pipeline(path, settings, until="synth")
    return QuestionSet(list(read_records(path / "heldout_qa.jsonl", QA)), path / "heldout_snapshot")


async def _evaluate(study: Study, arm: Arm, checkpoint: Path, name: str, questions: QuestionSet) -> Path:
    """Put a set of questions to a checkpoint; the folder holds results and episodes of the system `rl`."""
    path = study.out / "eval" / f"{arm.name}@{name}"
    path.mkdir(parents=True, exist_ok=True)
    write_atomic(path / "heldout_qa.jsonl", "".join(qa.model_dump_json() + "\n" for qa in questions.qas))
    _link(checkpoint, path / "rl")
    config = _long_config(study) if arm.mode == "long" else study.config
    evaluation = config.eval.model_copy(update={"systems": ("rl",), "temperature": 0.0, "top_p": 1.0})
    config = config.model_copy(update={"eval": evaluation})
    await evaluate_systems(path, config, questions.snapshot)
    return path


def _outcome(path: Path) -> dict[str, JsonValue]:
    """Scores and behaviour of one checkpoint on one set."""
    results = list(read_records(path / "eval" / "rl.jsonl", EvalResult))
    episodes = list(read_records(path / "eval" / "rl_trajectories.jsonl", Trajectory))
    return {
        "all": _score([r.exact_match for r in results]),
        "without_count": _score([r.exact_match for r in results if r.kind is not QAKind.COUNT]),
        "answered": sum(r.answer is not None for r in results) / len(results),
        "actions": sum(r.num_actions for r in results) / len(results),
        "tokens": sum(r.num_tokens for r in results) / len(results),
        "behaviour": behaviour(episodes).model_dump(),
    }


def _score(outcomes: Sequence[bool]) -> JsonValue:
    return score(outcomes).model_dump(mode="json")


def _training_cost(study: Study, arm: Arm) -> dict[str, JsonValue]:
    """Seconds of the arm's own training, and the rollouts of its RL."""
    path = {"sft": study.run, "rl": study.run}.get(arm.name, study.out / "arms" / arm.name)
    path = study.out / "arms" / "long_run" if arm.mode == "long" else path
    stage = "rl" if arm.name.startswith("rl") else "sft"
    manifest = path / "manifest.json"
    if arm.name == "base" or not manifest.exists():
        return {}
    cost: dict[str, JsonValue] = {"seconds": json.loads(manifest.read_text())["stages"][stage]["seconds"]}
    if stage == "rl":
        lines = (path / "rl" / "metrics.jsonl").read_text().splitlines()
        cost["rollouts"] = sum(json.loads(line).get("rollouts", 0) for line in lines)
    return cost


async def main() -> None:
    """Train and evaluate the arms, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="names of arms; without it all")
    args = parser.parse_args()
    study = Study(args.run, args.out)
    sets = await _question_sets(study)
    file = args.out / "ablations.json"  # arms of earlier calls stay in the tables
    found: dict[str, dict[str, JsonValue]] = json.loads(file.read_text()) if file.exists() else {}
    shows = {arm.name: arm.shows for arm in _arms(study)}
    for arm in _arms(study):
        if args.only and arm.name not in args.only:
            continue
        print(f"== {arm.name}: {arm.shows}", flush=True)
        checkpoint = arm.train(study, study.folder(arm.name))
        if not isinstance(checkpoint, Path):
            checkpoint = await checkpoint
        entry: dict[str, JsonValue] = dict(_training_cost(study, arm))
        for name, questions in sets.items():
            if name == "new_web" or arm.name in ("base", "sft", "rl"):
                entry[name] = _outcome(await _evaluate(study, arm, checkpoint, name, questions))
        found[arm.name] = entry
        write_json(file, dict(found))
        write_atomic(args.out / "ablations.md", _tables(found, shows))
    print((args.out / "ablations.md").read_text())


def _tables(found: Mapping[str, Mapping[str, Any]], shows: Mapping[str, str]) -> str:
    lines = [
        "| checkpoint | right, % | without COUNT, % | searches | visits | posts relied on | tokens | answered, % | "
        "trained, s | rollouts |",
        "|" + "---|" * 10,
    ]
    for name, entry in found.items():
        here = entry["new_web"]
        did = here["behaviour"]
        lines.append(
            f"| {shows[name]} | {_cell(here['all'])} | {_cell(here['without_count'])} | {did['searches']:.1f} | "
            f"{did['visits']:.1f} | {did['posts_relied_on']:.2f} | {here['tokens']:.0f} | "
            f"{100 * here['answered']:.0f} | {entry.get('seconds', 0):.0f} | {entry.get('rollouts', '')} |"
        )
    lines += [
        "",
        "| checkpoint | training web, new questions | new web | new web, one page more |",
        "|---|---|---|---|",
    ]
    for name, entry in found.items():
        if "training_web" in entry:
            cells = " | ".join(_cell(entry[key]["all"]) for key in ("training_web", "new_web", "one_page_more"))
            lines.append(f"| {shows[name]} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(value: JsonValue) -> str:
    found = Score.model_validate(value)
    low, high = (100 * bound for bound in found.ci95)
    return f"{100 * found.pass_at_1:.1f} [{low:.1f}, {high:.1f}], n = {found.num_questions}"


def _link(target: Path, link: Path) -> None:
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))


if __name__ == "__main__":
    preload()
    asyncio.run(main())
