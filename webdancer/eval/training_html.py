"""What training changed, as HTML: scores of the checkpoints by kind and by hops, learning curves, episodes side by side."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from pydantic import JsonValue

from webdancer.eval.charts import Bar, grouped_bars, line_chart
from webdancer.eval.episodes import episode_html
from webdancer.records import QA, Trajectory

Metrics = Mapping[str, JsonValue]
"""One line of a trainer's metrics.jsonl."""

_CHECKPOINTS = {"base": "base", "sft": "SFT", "rl": "DAPO"}
_CURVES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("sft", "SFT: loss", {"training": "loss", "validation": "validation_loss"}),
    ("rl", "DAPO: share of rollouts that are right", {"solve rate": "solve_rate"}),
    ("rl", "DAPO: mean reward", {"reward": "reward"}),
    ("rl", "DAPO: tool calls of an episode", {"calls": "actions_per_episode"}),
    ("rl", "DAPO: entropy of a token, nats", {"entropy": "entropy"}),
)
"""Stage, title, and the lines: name → key in the metrics."""


class Comparison(NamedTuple):
    """One question as several checkpoints answered it."""

    title: str
    qa: QA
    episodes: Mapping[str, tuple[Trajectory, bool]]
    """Checkpoint → its episode and whether its answer is right."""


def training_html(systems: Mapping[str, JsonValue], metrics: Mapping[str, Sequence[Metrics]]) -> str:
    """Bars by kind and by hops, and the learning curves; nothing where no checkpoint was evaluated and none trained."""
    parts = []
    evaluated = {name: value for key, name in _CHECKPOINTS.items() if isinstance(value := systems.get(key), dict)}
    if evaluated:
        for title, key, suffix in (("by kind", "by_kind", ""), ("by hops", "by_hops", " pages")):
            groups: dict[str, dict[str, Bar]] = {"all": {}} if key == "by_kind" else {}
            for name, entry in evaluated.items():
                if "all" in groups:
                    groups["all"][name] = _bar(entry)
                by_group = entry[key]
                assert isinstance(by_group, dict)
                for group, part in by_group.items():
                    groups.setdefault(f"{group.replace('_', ' ')}{suffix}", {})[name] = _bar(part)
            parts.append(f"<div>{grouped_bars(f'Held-out questions {title}', groups, list(evaluated))}</div>")
        parts.append(
            "<p class='soft'>pass@1 by normalised exact match, with 95 % Wilson intervals; by kind, and by the number of "
            "pages that a question needs. Checkpoints answer without being made to.</p>"
        )
    charts = [_curve(metrics.get(stage, ()), title, lines) for stage, title, lines in _CURVES]
    if any(charts):
        parts.append(f'<div class="charts">{"".join(charts)}</div>')
    return "".join(parts)


def _bar(entry: JsonValue) -> Bar:
    assert isinstance(entry, dict)
    ci, share, num = entry["ci95"], entry["pass@1"], entry["num_questions"]
    assert isinstance(ci, list)
    assert isinstance(share, int | float)
    assert isinstance(num, int)
    low, high = (float(bound) for bound in ci if isinstance(bound, int | float))
    return Bar(float(share), low, high, num)


def _curve(rows: Sequence[Metrics], title: str, lines: Mapping[str, str]) -> str:
    drawn: dict[str, list[tuple[float, float]]] = {}
    for name, key in lines.items():
        for row in rows:
            step, value = row.get("step"), row.get(key)
            if isinstance(step, int | float) and isinstance(value, int | float):
                drawn.setdefault(name, []).append((float(step), float(value)))
    return line_chart(title, drawn)


def comparison_html(comparison: Comparison) -> str:
    """One question with the episodes side by side."""
    columns = []
    for key, (trajectory, is_right) in comparison.episodes.items():
        answer = "no answer" if trajectory.answer is None else trajectory.answer
        mark = '<span class="good">right</span>' if is_right else '<span class="bad">wrong</span>'
        columns.append(
            f"<div><h4>{escape(_CHECKPOINTS.get(key, key))}: {escape(answer)} {mark}</h4>"
            f'<p class="soft">{escape(trajectory.status.replace("_", " "))}, {len(trajectory.steps)} turns, '
            f"{trajectory.num_tokens} tokens</p>{episode_html(trajectory)}</div>"
        )
    return (
        f"<details><summary><b>{escape(comparison.title)}</b>: {escape(comparison.qa.question)}</summary>"
        f"<p>Reference: <b>{escape(comparison.qa.answer)}</b></p>"
        f'<div class="columns">{"".join(columns)}</div></details>'
    )
