"""What a comparison of stages says of its results: figures read back from files, the verdict, the tables."""

from pathlib import Path

import pytest

from webdancer.pipeline.comparison import SYSTEMS, TEMPERATURES, SeedFigures, figures_of, holds, results_tables
from webdancer.records import EvalResult, QAKind, Status, Step, Trajectory
from webdancer.store import write_records

NUM = 400
RIGHT = {"base": 4, "sft": 220, "sft_more": 228, "rl": 300}


def write_run(run: Path, right: dict[str, int]) -> SeedFigures:
    """A run whose systems are right on their first so many questions; every fourth question is a COUNT."""
    (run / "eval").mkdir(parents=True)
    for system in SYSTEMS:
        thought = "A post says that X is Y." if system == "sft" else "I read “X”."
        steps = (Step(thought="First.", tool="search"), Step(thought=thought, tool="visit"), Step(thought="So Y."))
        for temperature in TEMPERATURES:
            name = f"{system}@{temperature:g}"
            results, episodes = [], []
            for i in range(NUM):
                key = f"{name}/{i}"
                results.append(
                    EvalResult(
                        id=key,
                        system=name,
                        qa_id=str(i),
                        kind=QAKind.MULTI_HOP if i % 4 else QAKind.COUNT,
                        num_rewrites=0,
                        answer="Y",
                        correct=True,  # the judge's word does not count
                        exact_match=i < right[system],
                        status=Status.ANSWERED,
                        num_actions=2,
                        num_tokens=600,
                    )
                )
                episodes.append(
                    Trajectory(
                        id=key,
                        qa_id=str(i),
                        question="?",
                        model=system,
                        seed=0,
                        steps=steps,
                        answer="Y",
                        status=Status.ANSWERED,
                    )
                )
            write_records(run / "eval" / f"{name}.jsonl", results)
            write_records(run / "eval" / f"{name}_trajectories.jsonl", episodes)
    write_records(run / "sft_more.jsonl", episodes[:3])
    return figures_of(run, seed=5, world_seeds=(7, 8), seconds={"sft": 100.0, "rl": 200.5})


def test_figures_are_read_back(tmp_path: Path) -> None:
    figures = write_run(tmp_path / "run", RIGHT)
    sft = figures.eval["sft@0.6"]
    assert (sft.all.num_correct, sft.all.num_questions, sft.without_count.num_questions) == (220, 400, 300)
    assert sft.without_count.num_correct == 165
    assert {kind: found.num_correct for kind, found in sft.by_kind.items()} == {"count": 55, "multi_hop": 165}
    assert (sft.behaviour.searches, sft.behaviour.visits, sft.behaviour.posts_relied_on) == (1, 1, 1)
    assert figures.eval["rl@0"].behaviour.posts_relied_on == 0
    assert (figures.num_own_right, figures.total_seconds) == (3, 300.5)
    assert SeedFigures.model_validate_json(figures.model_dump_json()) == figures


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"base": 9}, False),  # 2.25 %
        ({"base": 8}, True),
        ({"sft": 199}, False),  # below half
        ({"sft": 200}, True),
        ({"sft_more": 241}, False),  # 14.75 points below RL
        ({"rl": 288}, True),  # 15 points above the control
        ({"rl": 287}, False),
        ({"sft_more": 220, "rl": 280}, True),  # 0.7 - 0.55 is a little less than 0.15 in floating point
        ({"sft": 250}, False),  # the control does not excuse SFT
    ],
)
def test_the_verdict_asks_for_every_line_of_the_claim(tmp_path: Path, change: dict[str, int], expected: bool) -> None:
    assert holds(write_run(tmp_path / "run", RIGHT | change)) is expected


def test_intervals_must_be_apart(tmp_path: Path) -> None:
    figures = write_run(tmp_path / "run", RIGHT)
    few = {
        name: found.model_copy(
            update={
                group: getattr(found, group).model_copy(update={"ci95": (0.0, 1.0)})
                for group in ("all", "without_count")
            }
        )
        for name, found in figures.eval.items()
    }
    assert not holds(figures.model_copy(update={"eval": few}))


def test_tables_show_scores_kinds_behaviour_and_time(tmp_path: Path) -> None:
    text = results_tables([write_run(tmp_path / "run", RIGHT)])
    greedy = "1.0 [0.4, 2.5] | 55.0 [50.1, 59.8] | 57.0 [52.1, 61.8] | 75.0 [70.5, 79.0] | yes |"
    assert f"| 5 | greedy | all, n = 400 | {greedy}" in text
    assert "| 5 | T = 0.6, top-p 0.95 | without COUNT, n = 300 |" in text
    assert "| 5 | count, n = 100 |" in text
    assert "| 5 | sft | 1.00 | 1.00 | 1.00 | 600 |" in text
    assert "| 5 | 100 | 200 | 5.0 |" in text
    for table in text.split("\n\n"):
        assert len({line.count("|") for line in table.strip().splitlines()}) == 1, table
