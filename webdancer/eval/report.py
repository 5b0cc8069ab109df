"""The report of a run: one self-contained HTML file made from `summary.json` and a few trajectories to read.

Everything that came from the web or a model is escaped; the page holds no script.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from pydantic import JsonValue

from webdancer.eval.episodes import episode_html
from webdancer.eval.training_html import Comparison, Metrics, comparison_html, training_html
from webdancer.records import QA, Trajectory, Verdict
from webdancer.store import write_atomic

_BAR_WIDTH = 420
_NUMBER = re.compile(r"-?[\d,]+(?:\.\d+)?%?|yes|no|")
_MEASURE = (
    "pass@1: the share of questions answered right, with one attempt each, by exact match after normalisation; the lines are "
    "95 % intervals. Below by kind, and as the judge sees it, which tells more where answers are wordy."
)
_SYSTEMS = {
    "teacher": "teacher: the settings' model with search and visit.",
    "closed_book": "closed_book: a model without any tool.",
    "one_search": "one_search: a model with the results of one search.",
}
"""What is said of the systems that are there."""
_COUNTED = {
    "num_count_values": "different answers of counting questions",
    "num_sft": "with a trajectory that passed, in sft.jsonl",
    "num_rl": "for reinforcement learning, in rl_qa.jsonl",
    "num_heldout": "held out, in heldout_qa.jsonl",
}


def write_report(
    path: Path,
    summary: Mapping[str, JsonValue],
    samples: Sequence[tuple[QA, Trajectory, Sequence[Verdict]]],
    *,
    metrics: Mapping[str, Sequence[Metrics]],
    comparisons: Sequence[Comparison],
) -> None:
    """Write report.html.

    Args:
        path: where to.
        summary: what `summary.json` holds.
        samples: questions with a trajectory and its verdicts, in the order in which they are shown.
        metrics: what the trainers noted at each step, by stage (`sft`, `rl`).
        comparisons: questions with the episodes of several checkpoints, in the order in which they are shown.
    """
    template = Template(resources.files("webdancer.eval").joinpath("report.html").read_text(encoding="utf-8"))
    systems = _mapping(summary["eval"])
    write_atomic(
        path,
        template.substitute(
            name=escape(str(summary["name"])),
            lead=_lead(summary),
            evaluation=_evaluation(systems),
            training=_section("What training changed", training_html(systems, metrics)),
            comparisons=_section("The same question, before and after", "".join(map(comparison_html, comparisons))),
            funnel=_funnel(_mapping(summary["funnel"])),
            questions=_questions(_mapping(summary["qa"])),
            samples="".join(_sample(*sample) for sample in samples) or "<p>No trajectory was sampled.</p>",
            crawl=_crawl(_mapping(summary["crawl"])),
            seconds=_costs(summary, systems, metrics),
        ),
    )


def _lead(summary: Mapping[str, JsonValue]) -> str:
    """The note on the run, or which models made it."""
    rows = summary.get("outside") or []
    assert isinstance(rows, list)
    models = dict.fromkeys(str(row["who"]) for row in map(_mapping, rows) if row["kind"] == "chat")
    text = str(summary["note"]) or (f"Written, answered and judged by {', '.join(models)}." if models else "")
    return f'<p class="lead">{escape(text)}</p>' if text else ""


def _section(title: str, body: str) -> str:
    """A heading with what stands below it; nothing where that is empty."""
    return f"<h2>{escape(title)}</h2>\n{body}" if body else ""


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    assert isinstance(value, dict), f"got {type(value).__name__}, expected a mapping"
    return value


def _number(value: JsonValue) -> float:
    assert isinstance(value, int | float), f"got {value!r}, expected a number"
    return float(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[JsonValue]]) -> str:
    """An HTML table; columns of numbers are set to the right."""
    texts = [[_text(value) for value in row] for row in rows]
    marks = [
        ' class="num"' if all(_NUMBER.fullmatch(text) for text in column) else "" for column in zip(*texts, strict=True)
    ] or [""] * len(head)

    def line(tag: str, cells: Iterable[str]) -> str:
        found = (f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True))
        return f"<tr>{''.join(found)}</tr>"

    body = "".join(line("td", row) for row in texts)
    return f"<table><thead>{line('th', head)}</thead><tbody>{body}</tbody></table>"


def _text(value: JsonValue) -> str:
    """A cell as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _told(head: Sequence[str], rows: Sequence[Sequence[JsonValue]]) -> str:
    """A table without the columns in which nothing stands but zeros."""
    places = [place for place in range(len(head)) if any(row[place] not in ("", 0, "0.0000") for row in rows)]
    return _table([head[place] for place in places], [[row[place] for place in places] for row in rows])


def _words(key: str) -> str:
    """A key of the summary as people read it."""
    return key.removeprefix("num_").replace("_", " ")


def _crawl(crawl: Mapping[str, JsonValue]) -> str:
    """A column for each web; counts by reason become a row each."""
    heldout = _mapping(crawl.get("heldout", {}))
    train = _flat({key: value for key, value in crawl.items() if key != "heldout"})
    if not heldout:
        return _table(("what", "value"), list(train.items()))
    other = _flat(heldout)
    # The violations of both webs are counted together.
    other.pop("robots violations", None)
    names = dict.fromkeys([*train, *other])
    return _table(("what", "training web", "held-out web"), [(n, train.get(n, ""), other.get(n, "")) for n in names])


def _flat(values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    flat: dict[str, JsonValue] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{_words(key)}: {_words(reason)}": count for reason, count in value.items()}
        else:
            flat[_words(key)] = value
    return flat


def _evaluation(systems: Mapping[str, JsonValue]) -> str:
    """Bars with 95 % intervals, and the table by kind under them."""
    if not systems:
        return "<p>Nothing was evaluated.</p>"
    bars, rows = [], []
    for row, (name, value) in enumerate(systems.items()):
        entry = _mapping(value)
        share = _number(entry["pass@1"])
        ci = entry["ci95"]
        assert isinstance(ci, list)
        low, high = _number(ci[0]), _number(ci[1])
        y = 8 + row * 30
        bars.append(
            f'<text x="0" y="{y + 14}">{escape(name)}</text>'
            f'<rect x="110" y="{y}" width="{_BAR_WIDTH}" height="18" fill="var(--tint)"/>'
            f'<rect x="110" y="{y}" width="{share * _BAR_WIDTH:.1f}" height="18" fill="var(--mark)"/>'
            f'<path d="M{110 + low * _BAR_WIDTH:.1f} {y + 9}H{110 + high * _BAR_WIDTH:.1f}" stroke="var(--ink)" '
            'stroke-width="2"/>'
            f'<text x="{120 + _BAR_WIDTH}" y="{y + 14}">{share:.1%} '
            f'<tspan class="soft">[{low:.1%}, {high:.1%}], {entry["num_questions"]} questions</tspan></text>'
        )
        by_kind = _mapping(entry["by_kind"])
        shares = (f"{_number(_mapping(part)['pass@1']):.1%}" for part in by_kind.values())
        judged = f"{_number(entry['judged_correct']):.1%}"
        rows.append([name, *shares, judged, entry["mean_actions"], entry["mean_tokens"]])
    kinds = [_words(kind) for kind in _mapping(_mapping(next(iter(systems.values())))["by_kind"])]
    told = [text for name, text in _SYSTEMS.items() if name in systems]
    picture = f'<svg viewBox="0 0 860 {len(bars) * 30 + 12}" role="img" aria-label="pass@1">{"".join(bars)}</svg>'
    return (
        picture
        + f"<p class='soft'>{escape(' '.join((_MEASURE, *told)))}</p>"
        + _table(("system", *kinds, "by the judge", "tool calls", "tokens an episode"), rows)
    )


def _costs(
    summary: Mapping[str, JsonValue], systems: Mapping[str, JsonValue], metrics: Mapping[str, Sequence[Metrics]]
) -> str:
    """Seconds of each stage and what it made or read in them, and what each system's answers cost."""
    crawled, written = _mapping(summary["crawl"]), _mapping(summary["qa"])
    heldout = _mapping(crawled.get("heldout", {}))
    sampled = sum(_of(step, "rollouts") * _of(step, "sampled_tokens_per_episode") for step in metrics.get("rl", ()))
    work = {
        "crawl": f"{_number(crawled['num_pages']) + _number(heldout.get('num_pages', 0)):,.0f} pages",
        "synth": f"{sum(map(_number, _mapping(written['by_kind']).values())):,.0f} questions to train on",
        "sample": f"{_number(_mapping(summary['funnel'])['sampled']):,.0f} attempts",
        "sft": f"{sum(_of(step, 'tokens') for step in metrics.get('sft', ())):,.0f} tokens read",
        "rl": f"{sum(_of(step, 'rollouts') for step in metrics.get('rl', ())):,.0f} rollouts, {sampled:,.0f} tokens sampled",
    }
    stages = [[stage, seconds, work.get(stage, "")] for stage, seconds in _mapping(summary["seconds"]).items()]
    names = ("seconds", "prompt_tokens", "cached_tokens", "sampled_tokens", "sampled_tokens_per_s")
    rows = []
    for name, value in systems.items():
        cost = _mapping(_mapping(value).get("cost", {}))
        rows.append([name, *(cost.get(key, "") for key in names)])
    head = ("system", "seconds", "tokens read", "taken from the cache", "tokens sampled", "sampled a second")
    return (
        _table(("stage", "seconds", "what it did"), stages)
        + (_told(head, rows) if rows else "")
        + _outside(summary.get("outside") or [])
    )


def _outside(rows: JsonValue) -> str:
    """The calls of models, search engines and readers (a snapshot too), by stage and role, the parts of a stage added up."""
    assert isinstance(rows, list)
    names = ("calls", "failed", "untold", "prompt_tokens", "cached_tokens", "completion_tokens", "money")
    sums: dict[tuple[str, str, str], list[float]] = {}
    for row in map(_mapping, rows):
        key = (str(row["stage"]), str(row["role"]), str(row["who"]))
        before = sums.get(key, [0.0] * len(names))
        sums[key] = [old + _number(row.get(name) or 0) for old, name in zip(before, names, strict=True)]
    if not sums:
        return ""
    head = (
        "stage",
        "role",
        "model or engine",
        "calls",
        "of these failed",
        "told no usage",
        "prompt tokens",
        "cached",
        "written",
        "money",
    )
    sums["all", "", ""] = [sum(values) for values in zip(*sums.values(), strict=True)]
    shown: list[list[JsonValue]] = [
        [*key, *(round(value) for value in values[:-1]), f"{values[-1]:.4f}"] for key, values in sums.items()
    ]
    return "<h3>Calls of models, search engines and readers</h3>" + _told(head, shown)


def _of(step: Metrics, name: str) -> float:
    return _number(step.get(name) or 0)


def _funnel(funnel: Mapping[str, JsonValue]) -> str:
    """The funnel as a picture: what is left after each stage, and why the rest fell."""
    sampled = _number(funnel["sampled"])
    if not sampled:
        return "<p>No trajectory was sampled.</p>"
    left, bars = sampled, [("sampled", sampled, "")]
    for stage, value in _mapping(funnel["dropped"]).items():
        reasons = _mapping(value)
        left -= sum(_number(count) for count in reasons.values())
        why = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in reasons.items())
        bars.append((f"after {stage}", left, f"dropped: {why}" if why else "dropped: none"))
    rows = []
    for row, (name, count, why) in enumerate(bars):
        width = count / sampled * _BAR_WIDTH
        y = 6 + row * 44
        rows.append(
            f'<text x="0" y="{y + 16}">{escape(name)}</text>'
            f'<rect x="{130 + (_BAR_WIDTH - width) / 2:.1f}" y="{y}" width="{width:.1f}" height="22" fill="var(--good)"/>'
            f'<text x="{140 + _BAR_WIDTH}" y="{y + 16}">{count:.0f}</text>'
            f'<text class="soft" x="130" y="{y + 36}">{escape(why)}</text>'
        )
    return f'<svg viewBox="0 0 860 {len(bars) * 44 + 8}" role="img" aria-label="funnel">{"".join(rows)}</svg>'


def _questions(qa: Mapping[str, JsonValue]) -> str:
    by_kind, by_rewrites = _mapping(qa["by_kind"]), _mapping(qa["by_rewrites"])
    heldout = _mapping(qa.get("heldout_by_kind", {}))
    kinds = [(_words(kind), by_kind.get(kind, 0), heldout.get(kind, 0)) for kind in dict.fromkeys([*by_kind, *heldout])]
    dropped, heldout_dropped = _mapping(qa.get("dropped", {})), _mapping(qa.get("heldout_dropped", {}))
    reasons = [
        (_words(reason), dropped.get(reason, 0), heldout_dropped.get(reason, 0))
        for reason in dict.fromkeys([*dropped, *heldout_dropped])
    ]
    numbers = [(_COUNTED.get(key, _words(key)), value) for key, value in qa.items() if not isinstance(value, dict)]
    return (
        _table(("kind", "to train on", "held out"), kinds)
        + (_table(("rewrites", "easy-to-hard questions"), list(by_rewrites.items())) if by_rewrites else "")
        + _table(("what", "questions"), numbers)
        + (_table(("written and not used, because", "to train on", "held out"), reasons) if reasons else "")
    )


def _sample(qa: QA, trajectory: Trajectory, verdicts: Sequence[Verdict]) -> str:
    kept = bool(verdicts) and all(verdict.keep for verdict in verdicts)
    fate = "kept" if kept else "dropped: " + ", ".join(v.reason.replace("_", " ") for v in verdicts if not v.keep)
    steps = episode_html(trajectory)
    pages = "".join(f"<br>asks about {escape(url)}" for url in qa.evidence_urls)
    return (
        f"<details><summary><b>{escape(qa.kind.replace('_', ' '))}</b>: {escape(qa.question)} "
        f'<span class="{"good" if kept else "bad"}">{escape(fate)}</span></summary>'
        f"<p>Reference: <b>{escape(qa.answer)}</b>. Answer: <b>{escape(str(trajectory.answer))}</b>. "
        f'<span class="soft">{escape(trajectory.id)}, {escape(trajectory.status)}, '
        f"{trajectory.usage.llm_calls} model calls{pages}</span></p>{steps}</details>"
    )
