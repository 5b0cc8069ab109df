"""Gathers a run's numbers from its records into summary.json, and writes the report."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import JsonValue

from webdancer.calls.ledger import as_json, read_ledger
from webdancer.config import Config
from webdancer.eval.metrics import Score, score, score_by
from webdancer.eval.report import write_report
from webdancer.pipeline.comparisons import choose_comparisons
from webdancer.pipeline.evaluating import labels, read_costs
from webdancer.pipeline.progress import console
from webdancer.pipeline.run_folder import RunFolder
from webdancer.records import QA, EvalResult, QAKind, Trajectory, Verdict, VerdictStage
from webdancer.store import read_records, write_json
from webdancer.synth.outcomes import DroppedQA

_EMBEDDED_NOTE = (
    "An invented web of controlled English; a rule-based reader in every role of a language model except the policy's. The "
    "figures show that the pipeline works and that its policy learns; they say nothing about real sites or real models."
)
_SAMPLES_PER_KIND = 2


def write_summary(run: RunFolder) -> None:
    """Write summary.json and report.html from the records of a run."""
    path = run.path
    qas = list(read_records(path / "qa.jsonl", QA))
    verdicts = list(read_records(path / "verdicts.jsonl", Verdict))
    trajectories = list(read_records(path / "trajectories.jsonl", Trajectory))
    summary: dict[str, JsonValue] = {
        "name": path.name,
        "note": _EMBEDDED_NOTE if run.config.crawl.is_embedded else "",
        "crawl": _crawl(path),
        "qa": _questions(path, qas),
        "funnel": _funnel(trajectories, verdicts),
        "training": {stage: _training(path / stage / "metrics.jsonl") for stage in ("sft", "rl")},
        "eval": _evaluation(path, run.config),
        "seconds": dict(run.seconds()),
        "outside": list(as_json(read_ledger(sorted(path.glob("ledger*.jsonl"))))),
    }
    write_json(path / "summary.json", summary)
    write_report(
        path / "report.html",
        summary,
        _samples(qas, trajectories, verdicts),
        metrics={stage: read_metrics(path / stage / "metrics.jsonl") for stage in ("sft", "rl")},
        comparisons=choose_comparisons(path),
    )
    _print_summary(summary, path)


def read_metrics(path: Path) -> list[dict[str, JsonValue]]:
    """The lines of a trainer's metrics.jsonl; none where it has not run. A torn last line is skipped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _training(path: Path) -> dict[str, JsonValue]:
    """What a trainer's metrics say last, key by key (not every line has every key)."""
    rows = read_metrics(path)
    return {key: value for row in rows for key, value in row.items()}


def _crawl(path: Path) -> dict[str, JsonValue]:
    """The training web's counts, robots violations of all webs, and the held-out web's counts beside them."""
    found = {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name in ("train", "heldout")
        if (file := path / "crawl" / f"{name}.json").exists()
    }
    crawl: dict[str, JsonValue] = dict(found["train"])
    if "heldout" in found:
        crawl["num_robots_violations"] = sum(counts["num_robots_violations"] for counts in found.values())
        crawl["heldout"] = found["heldout"]
    return crawl


def _questions(path: Path, qas: Sequence[QA]) -> dict[str, JsonValue]:
    by_kind = Counter(str(qa.kind) for qa in qas)
    rewrites = Counter(qa.num_rewrites for qa in qas if qa.kind is QAKind.EASY_TO_HARD)
    heldout = list(read_records(path / "heldout_qa.jsonl", QA))
    kept = {trajectory.qa_id for trajectory in read_records(path / "sft.jsonl", Trajectory)}
    return {
        "by_kind": {str(kind): by_kind[str(kind)] for kind in QAKind},
        "by_rewrites": {str(number): rewrites[number] for number in sorted(rewrites)},
        "heldout_by_kind": dict(sorted(Counter(str(qa.kind) for qa in heldout).items())),
        "dropped": _reasons(path / "qa_dropped.jsonl"),
        "heldout_dropped": _reasons(path / "heldout_qa_dropped.jsonl"),
        "num_count_values": len({qa.answer for qa in qas if qa.kind is QAKind.COUNT}),
        "num_sft": len(kept),
        "num_rl": sum(1 for _ in read_records(path / "rl_qa.jsonl", QA)),
        "num_heldout": len(heldout),
    }


def _reasons(path: Path) -> dict[str, JsonValue]:
    """How many questions were written and not used, by reason, the most frequent first."""
    return dict(Counter(str(dropped.reason) for dropped in read_records(path, DroppedQA)).most_common())


def _funnel(trajectories: Sequence[Trajectory], verdicts: Sequence[Verdict]) -> dict[str, JsonValue]:
    """Sampled, kept, and dropped by stage and reason; sampled = kept + all dropped."""
    dropped = Counter((verdict.stage, verdict.reason) for verdict in verdicts if not verdict.keep)
    num_dropped = dropped.total()
    by_stage: dict[str, JsonValue] = {}
    for stage in VerdictStage:
        reasons = {str(reason): number for (at, reason), number in sorted(dropped.items()) if at is stage}
        by_stage[str(stage)] = dict(reasons)
    return {"sampled": len(trajectories), "kept": len(trajectories) - num_dropped, "dropped": by_stage}


def _evaluation(path: Path, config: Config) -> dict[str, JsonValue]:
    systems: dict[str, JsonValue] = {}
    costs = read_costs(path)
    for name in labels(config):
        results = list(read_records(path / "eval" / f"{name}.jsonl", EvalResult))
        if not results:
            continue
        by_kind = score_by(results, lambda result: str(result.kind))
        by_hops = score_by(results, lambda result: str(result.num_hops))
        by_rewrites = score_by(
            (r for r in results if r.kind is QAKind.EASY_TO_HARD), lambda result: str(result.num_rewrites)
        )
        systems[name] = {
            **_entry(score([result.exact_match for result in results])),
            "judged_correct": round(_mean(result.correct is True for result in results), 4),
            "num_judge_failed": sum(result.correct is None for result in results),
            "mean_actions": round(_mean(result.num_actions for result in results), 2),
            "mean_turns": round(_mean(result.num_turns for result in results), 2),
            "mean_tokens": round(_mean(result.num_tokens for result in results), 1),
            "statuses": dict(sorted(Counter(str(result.status) for result in results).items())),
            "by_kind": {kind: _entry(value) for kind, value in by_kind.items()},
            "by_hops": {hops: _entry(value) for hops, value in by_hops.items()},
            "by_rewrites": {number: _entry(value) for number, value in by_rewrites.items()},
            "cost": costs[name].as_json() if name in costs else {},
        }
    return systems


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _entry(value: Score) -> dict[str, JsonValue]:
    return {
        "pass@1": round(value.pass_at_1, 4),
        "ci95": [round(bound, 4) for bound in value.ci95],
        "num_questions": value.num_questions,
    }


def _samples(
    qas: Sequence[QA], trajectories: Sequence[Trajectory], verdicts: Sequence[Verdict]
) -> list[tuple[QA, Trajectory, list[Verdict]]]:
    """Per kind a few trajectories that were kept, then one for every reason for which some were dropped."""
    by_id = {qa.id: qa for qa in qas}
    of: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        of.setdefault(verdict.trajectory_id, []).append(verdict)
    chosen: list[tuple[QA, Trajectory, list[Verdict]]] = []
    num_shown: Counter[str] = Counter()
    for trajectory in sorted(trajectories, key=lambda trajectory: trajectory.id):
        qa, given = by_id[trajectory.qa_id], of.get(trajectory.id, [])
        fell = next((verdict for verdict in given if not verdict.keep), None)
        label, most = (str(qa.kind), _SAMPLES_PER_KIND) if fell is None else (f"dropped {fell.reason}", 1)
        if num_shown[label] < most:
            num_shown[label] += 1
            chosen.append((qa, trajectory, given))
    return sorted(chosen, key=lambda sample: not all(verdict.keep for verdict in sample[2]))


def _print_summary(summary: dict[str, JsonValue], path: Path) -> None:
    systems, funnel = summary["eval"], summary["funnel"]
    assert isinstance(systems, dict)
    assert isinstance(funnel, dict)
    console.print(f"  trajectories: {funnel['sampled']} sampled, {funnel['kept']} kept")
    for name, entry in systems.items():
        assert isinstance(entry, dict)
        console.print(f"  {name:<12} pass@1 {entry['pass@1']:.3f}  95% {entry['ci95']}  n={entry['num_questions']}")
    console.print(f"  report: {path / 'report.html'}")
