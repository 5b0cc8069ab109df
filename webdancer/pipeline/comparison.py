"""What the stages of one or several runs gained, as figures and as tables: base, SFT, further SFT in RL's time, RL.

Pure arithmetic over the results and episodes that `pipeline/reproduce.py` makes. Scores are normalised exact match.
"""

from collections.abc import Sequence
from pathlib import Path

from webdancer.eval.metrics import Score, score, score_by
from webdancer.pipeline.behaviour import Behaviour, behaviour
from webdancer.records import EvalResult, QAKind, Record, Trajectory
from webdancer.store import read_records

SYSTEMS = ("base", "sft", "sft_more", "rl")
TEMPERATURES = (0.0, 0.6)
TOP_P = 0.95
"""With temperature 0.6: the paper's evaluation settings."""
_MAX_BASE, _MIN_SFT, _MIN_GAIN = 2, 50, 15
"""In per cent."""


class SystemFigures(Record):
    """One checkpoint under one way of decoding."""

    all: Score
    without_count: Score
    by_kind: dict[str, Score]
    behaviour: Behaviour
    mean_actions: float
    mean_tokens: float


class SeedFigures(Record):
    """One seed."""

    seed: int
    world_seeds: tuple[int, int]
    """Of the training and of the held-out web."""
    eval: dict[str, SystemFigures]
    """By name and temperature: `rl@0.6`."""
    num_own_right: int
    """Trajectories that `sft_more` was trained on: the SFT policy's own, with a right answer."""
    seconds: dict[str, float]
    """By stage."""
    total_seconds: float


def figures_of(run: Path, *, seed: int, world_seeds: tuple[int, int], seconds: dict[str, float]) -> SeedFigures:
    """Read what a finished comparison left in its run folder."""
    evaluation = {}
    for temperature in TEMPERATURES:
        for system in SYSTEMS:
            name = f"{system}@{temperature:g}"
            results = list(read_records(run / "eval" / f"{name}.jsonl", EvalResult))
            episodes = list(read_records(run / "eval" / f"{name}_trajectories.jsonl", Trajectory))
            evaluation[name] = _system_figures(results, episodes)
    return SeedFigures(
        seed=seed,
        world_seeds=world_seeds,
        eval=evaluation,
        num_own_right=sum(1 for _ in read_records(run / "sft_more.jsonl", Trajectory)),
        seconds=seconds,
        total_seconds=round(sum(seconds.values()), 1),
    )


def _system_figures(results: Sequence[EvalResult], episodes: Sequence[Trajectory]) -> SystemFigures:
    num = max(1, len(results))
    return SystemFigures(
        all=score([r.exact_match for r in results]),
        without_count=score([r.exact_match for r in results if r.kind is not QAKind.COUNT]),
        by_kind=score_by(results, lambda result: result.kind),
        behaviour=behaviour(episodes),
        mean_actions=round(sum(r.num_actions for r in results) / num, 3),
        mean_tokens=round(sum(r.num_tokens for r in results) / num, 1),
    )


def holds(figures: SeedFigures) -> bool:
    """Whether a seed shows, in each of its four views, what is claimed.

    Base is right in at most 2 %, SFT in at least half; RL is 15 points above SFT and above its control, intervals apart.
    """
    return all(_view_holds(*_scores(figures, t, group)) for t in TEMPERATURES for group in ("all", "without_count"))


def _view_holds(base: Score, sft: Score, more: Score, rl: Score) -> bool:
    """In whole numbers: all four answered the same questions."""
    num = rl.num_questions
    gains = [
        100 * (rl.num_correct - other.num_correct) >= _MIN_GAIN * num and rl.ci95[0] > other.ci95[1]
        for other in (sft, more)
    ]
    return 100 * base.num_correct <= _MAX_BASE * num and 100 * sft.num_correct >= _MIN_SFT * num and all(gains)


def _scores(figures: SeedFigures, temperature: float, group: str) -> list[Score]:
    return [getattr(figures.eval[f"{system}@{temperature:g}"], group) for system in SYSTEMS]


def results_tables(seeds: Sequence[SeedFigures]) -> str:
    """The tables of `results.md`: scores in per cent with 95 % intervals, and what the checkpoints do otherwise."""
    return f"{_score_table(seeds)}\n{_kind_table(seeds)}\n{_behaviour_table(seeds)}\n{_time_table(seeds)}"


def _score_table(seeds: Sequence[SeedFigures]) -> str:
    lines = [_row("seed", "decoding", "questions", *SYSTEMS, "holds"), _rule(4 + len(SYSTEMS))]
    for figures in seeds:
        for temperature in TEMPERATURES:
            for group in ("all", "without_count"):
                scores = _scores(figures, temperature, group)
                decoding = f"T = {temperature:g}, top-p {TOP_P}" if temperature else "greedy"
                kinds = "all" if group == "all" else "without COUNT"
                cells = [_interval(found) for found in scores]
                verdict = "yes" if _view_holds(*scores) else "no"
                lines.append(_row(figures.seed, decoding, f"{kinds}, n = {scores[0].num_questions}", *cells, verdict))
    return "\n".join(lines) + "\n"


def _kind_table(seeds: Sequence[SeedFigures]) -> str:
    lines = [_row("seed, greedy", "kind", *SYSTEMS), _rule(2 + len(SYSTEMS))]
    for figures in seeds:
        for kind, found in figures.eval["base@0"].by_kind.items():
            cells = [_interval(figures.eval[f"{system}@0"].by_kind[kind]) for system in SYSTEMS]
            lines.append(_row(figures.seed, f"{kind}, n = {found.num_questions}", *cells))
    return "\n".join(lines) + "\n"


def _behaviour_table(seeds: Sequence[SeedFigures]) -> str:
    columns = ("searches", "visits", "posts relied on", "tokens")
    lines = [_row("seed, greedy", "checkpoint", *(f"{name} an episode" for name in columns)), _rule(6)]
    for figures in seeds:
        for system in SYSTEMS:
            found = figures.eval[f"{system}@0"]
            did = found.behaviour
            numbers = (did.searches, did.visits, did.posts_relied_on)
            lines.append(_row(figures.seed, system, *(f"{n:.2f}" for n in numbers), f"{found.mean_tokens:.0f}"))
    return "\n".join(lines) + "\n"


def _time_table(seeds: Sequence[SeedFigures]) -> str:
    stages = list(seeds[0].seconds) if seeds else []
    lines = [_row("seed", *(f"{stage}, s" for stage in stages), "all, min"), _rule(2 + len(stages))]
    for figures in seeds:
        cells = [f"{figures.seconds.get(stage, 0):.0f}" for stage in stages]
        lines.append(_row(figures.seed, *cells, f"{figures.total_seconds / 60:.1f}"))
    return "\n".join(lines) + "\n"


def _interval(found: Score) -> str:
    return f"{100 * found.pass_at_1:.1f} [{100 * found.ci95[0]:.1f}, {100 * found.ci95[1]:.1f}]"


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _rule(num_columns: int) -> str:
    return "|" + "---|" * num_columns
