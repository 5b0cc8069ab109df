"""The funnel against planted faults: recall and precision per kind of fault.

    python benchmarks/funnel.py [--released FILE] [--run RUN] [--seeds 3]

Three tables. (1) Faults of every kind, planted as text into each of the authors' released trajectories; the reference of a
question is the released answer, so the judge has only to compare; no critic, and one call is enough, since nine in ten of
them make one. (2) The same faults planted into the kept trajectories of a run, through all stages with the run's settings.
(3) The faults that the scribe planted itself while the run was sampled, by their labels, against the run's verdicts.

Recall: dropped of those with the fault. Precision: those with the fault among all that fell of them and the clean ones
together. Named: dropped for the reason that belongs to the fault. Writes benchmarks/out/funnel.json.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from webdancer.config import FunnelSettings
from webdancer.records import QA, QAKind, Trajectory, Verdict, VerdictReason
from webdancer.scribe.model import Scribe
from webdancer.store import read_records, write_json
from webdancer.trajectories.funnel import run_funnel
from webdancer.trajectories.import_release import import_webdancer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from planted_faults import PLANTS, plant, wrong_answer  # noqa: E402

OUT = ROOT / "benchmarks" / "out" / "funnel.json"
RELEASED = ROOT.parent / "shared/data/webdancer-samples/sample_traj.jsonl"
REASONS = {kind: planted.reasons for kind, planted in PLANTS.items()}
"""The reasons that belong to a fault; the scribe's own faults bear the same names."""
FORMAT_FAULTS = {kind for kind, planted in PLANTS.items() if planted.is_format}


class Row(NamedTuple):
    """One kind of fault."""

    kind: str
    num_planted: int
    recall: float
    precision: float
    named: float
    stages: Mapping[str, int]
    """Where those that fell did so."""


def count(kind: str, with_fault: Sequence[Verdict], num_clean_dropped: int) -> Row:
    """The row of a kind from the last verdicts on the trajectories that have it."""
    dropped = [verdict for verdict in with_fault if not verdict.keep]
    named = sum(verdict.reason in REASONS[kind] for verdict in dropped)
    return Row(
        kind,
        len(with_fault),
        len(dropped) / len(with_fault),
        len(dropped) / max(1, len(dropped) + num_clean_dropped),
        named / len(with_fault),
        dict(sorted(Counter(verdict.stage.value for verdict in dropped).items())),
    )


def report(title: str, rows: Sequence[Row], clean: Sequence[Verdict]) -> dict[str, object]:
    """Print a table; the same as a value."""
    dropped = Counter(f"{verdict.stage}/{verdict.reason}" for verdict in clean if not verdict.keep)
    total = sum(row.num_planted for row in rows)
    fell = sum(row.recall * row.num_planted for row in rows)
    in_format = [row for row in rows if row.kind in FORMAT_FAULTS]
    fell_in_format = sum(row.recall * row.num_planted for row in in_format)
    print(f"\n{title}\n{'fault':<22}{'planted':>8}{'recall':>9}{'precision':>11}{'named':>8}  fell at")
    for row in rows:
        stages = ", ".join(f"{stage} {number}" for stage, number in row.stages.items())
        print(f"{row.kind:<22}{row.num_planted:>8}{row.recall:>9.3f}{row.precision:>11.3f}{row.named:>8.3f}  {stages}")
    share = dropped.total() / max(1, len(clean))
    print(f"all faults: {fell:.0f} of {total} dropped ({fell / max(1, total):.2%}); in the format: {fell_in_format:.0f} of "
          f"{sum(row.num_planted for row in in_format)}")  # fmt: skip
    print(f"clean: {dropped.total()} of {len(clean)} dropped ({share:.2%}) {dict(dropped) or ''}")
    return {
        "rows": [row._asdict() for row in rows],
        "recall": fell / max(1, total),
        "num_clean": len(clean),
        "clean_dropped": dict(dropped),
    }


async def last_verdicts(
    trajectories: Sequence[Trajectory], qas: Mapping[str, QA], settings: FunnelSettings
) -> dict[str, Verdict]:
    """Each trajectory's last verdict, the scribe as judge and critic."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "verdicts.jsonl"
        scribe = Scribe()
        await run_funnel(trajectories, qas, judge_model=scribe, critic_model=scribe, settings=settings, out=out)
        return {verdict.trajectory_id: verdict for verdict in read_records(out, Verdict)}


async def plant_all(
    title: str, clean: Sequence[Trajectory], qas: Mapping[str, QA], settings: FunnelSettings, num_seeds: int
) -> dict[str, object]:
    """Tables 1 and 2: every kind of fault in every trajectory, once per seed."""
    clean_verdicts = list((await last_verdicts(clean, qas, settings)).values())
    num_clean_dropped = sum(not verdict.keep for verdict in clean_verdicts)
    rows = []
    for kind in PLANTS:
        verdicts: list[Verdict] = []
        for seed in range(num_seeds):
            rng = Random(f"{seed} {kind}")
            planted = [
                plant(t, kind, wrong_answer=wrong_answer(t, list(clean), rng), seed=seed)
                for t in clean
                if len(t.steps) > 1
            ]
            verdicts += (await last_verdicts(planted, qas, settings)).values()
        # Clean trajectories fall once, faulty ones are planted once per seed: weigh both alike.
        rows.append(count(kind, verdicts, num_clean_dropped * num_seeds))
    return report(title, rows, clean_verdicts)


def released_table(file: Path, num_seeds: int) -> dict[str, object]:
    """Table 1, and how many of the released trajectories the rule of too few actions would drop."""
    with tempfile.TemporaryDirectory() as folder:
        print("import:", import_webdancer(file, Path(folder)))
        clean = list(read_records(Path(folder) / "trajectories.jsonl", Trajectory))
    clean = [trajectory.model_copy(update={"qa_id": trajectory.id}) for trajectory in clean]
    qas = {
        t.id: QA(id=t.id, question=t.question, answer=t.answer or "", kind=QAKind.MULTI_HOP, evidence_urls=())
        for t in clean
    }
    settings = FunnelSettings(min_actions=1, use_critic=False)
    table = asyncio.run(plant_all("Planted into the released trajectories", clean, qas, settings, num_seeds))
    num_calls = Counter(sum(step.tool is not None for step in t.steps) for t in clean)
    few = {least: sum(number for calls, number in num_calls.items() if calls < least) for least in (1, 2, 3)}
    print(f"too few actions: dropped with min_actions 1, 2, 3: {few[1]}, {few[2]}, {few[3]} of {len(clean)}")
    return table | {"dropped_by_min_actions": few}


def run_tables(run: Path, num_seeds: int) -> dict[str, object]:
    """Tables 2 and 3."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    settings = FunnelSettings.model_validate(manifest["config"]["funnel"])
    trajectories = {t.id: t for t in read_records(run / "trajectories.jsonl", Trajectory)}
    last = {verdict.trajectory_id: verdict for verdict in read_records(run / "verdicts.jsonl", Verdict)}
    qas = {qa.id: qa for qa in read_records(run / "qa.jsonl", QA)}
    lines = (run / "planted_faults.jsonl").read_text(encoding="utf-8").splitlines()
    labels = {(entry["seed"], entry["question"]): entry["fault"] for entry in map(json.loads, lines)}
    by_kind: dict[str, list[Verdict]] = {}
    clean: list[Verdict] = []
    for trajectory in trajectories.values():
        label = labels.get((trajectory.seed, trajectory.question))
        (clean if label is None else by_kind.setdefault(label, [])).append(last[trajectory.id])
    # An answer that is wrong without a planted fault is the scribe's own mistake, and rightly dropped.
    right = [verdict for verdict in clean if verdict.reason is not VerdictReason.WRONG_ANSWER]
    num_dropped = sum(not verdict.keep for verdict in right)
    rows = [count(kind, verdicts, num_dropped) for kind, verdicts in sorted(by_kind.items())]
    own = report(f"Planted by the scribe while {run} was sampled", rows, right)
    print(f"without a planted fault, but answered wrongly: {len(clean) - len(right)}")
    kept = [trajectories[id_] for id_, verdict in sorted(last.items()) if verdict.keep][:100]
    planted = asyncio.run(
        plant_all(f"Planted into {len(kept)} kept trajectories of {run}", kept, qas, settings, num_seeds)
    )
    return {"own_faults": own, "planted": planted}


def main() -> None:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--released", type=Path, default=RELEASED)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    tables: dict[str, object] = {}
    if args.released.exists():
        tables["released"] = released_table(args.released, args.seeds)
    if args.run is not None:
        tables["run"] = run_tables(args.run, args.seeds)
    if not tables:
        parser.error(f"nothing to do: {args.released} is not there and no --run was given")
    write_json(OUT, tables)
    print(f"\nwritten to {OUT}")


if __name__ == "__main__":
    main()
