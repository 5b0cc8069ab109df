"""Small charts as SVG text that stands in a page by itself: lines over steps, and grouped bars with intervals."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 400, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 30, 30
_COLOURS = ("var(--mark)", "var(--good)", "var(--bad)", "var(--soft)")

Points = Sequence[tuple[float, float]]


class Bar(NamedTuple):
    """One share with its interval, all in [0, 1]."""

    share: float
    low: float
    high: float
    num: int


def line_chart(title: str, lines: Mapping[str, Points], *, x_name: str = "step") -> str:
    """Lines over a common x axis; empty text where there is nothing to draw.

    Args:
        title: stands over the chart.
        lines: name → points with finite values, x ascending.
    """
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    every = [point for points in lines.values() for point in points]
    x_low, x_high = _range([x for x, _ in every])
    y_low, y_high = _range([y for _, y in every])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return _LEFT + across, _HEIGHT - _BOTTOM - up

    parts = [f'<text x="0" y="14" class="title">{escape(title)}</text>']
    for value in (y_low, (y_low + y_high) / 2, y_high):
        _, y = at(x_low, value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="var(--line)"/>')
        parts.append(f'<text class="soft" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value, anchor in ((x_low, "start"), (x_high, "end")):
        x, _ = at(value, y_low)
        name = f"{x_name} " if anchor == "start" else ""
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{name}{_short(value)}</text>'
        )
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [at(x, y) for x, y in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) <= 40:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
        if len(lines) > 1:
            parts.append(
                f'<text x="{_WIDTH - _RIGHT}" y="{14 + 14 * number}" text-anchor="end" style="fill:{colour}">'
                f"{escape(name)}</text>"
            )
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def grouped_bars(title: str, groups: Mapping[str, Mapping[str, Bar]], names: Sequence[str]) -> str:
    """Upright bars from 0 to 100 %, one group beside the other, each bar with its interval.

    Args:
        title: what the picture is called.
        groups: name of the group → name of the bar → the bar.
        names: the bars' names in their order; each has its colour.
    """
    width_of_bar, gap, floor, height = 26, 26, 190, 150
    group_width = len(names) * width_of_bar + gap
    width = _LEFT + max(len(groups) * group_width, len(names) * 90)
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = floor - share * height
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{width}" stroke="var(--line)"/>')
        parts.append(f'<text class="soft" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for number, (group, bars) in enumerate(groups.items()):
        left = _LEFT + gap / 2 + number * group_width
        for place, name in enumerate(names):
            if name not in bars:
                continue
            bar, x = bars[name], left + place * width_of_bar
            tip = f"{name}, {group}: {bar.share:.1%} [{bar.low:.1%}, {bar.high:.1%}], {bar.num} questions"
            top, middle = floor - bar.share * height, x + (width_of_bar - 4) / 2
            parts.append(
                f'<g><title>{escape(tip)}</title><rect x="{x:.1f}" y="{top:.1f}" width="{width_of_bar - 4}" '
                f'height="{bar.share * height:.1f}" fill="{_bar_colour(place, names)}"/>'
                f'<path d="M{middle:.1f} {floor - bar.low * height:.1f}V{floor - bar.high * height:.1f}" '
                f'stroke="var(--ink)" stroke-width="1.5"/></g>'
            )
        centre = left + (len(names) * width_of_bar - 4) / 2
        parts.append(f'<text x="{centre:.1f}" y="{floor + 16}" text-anchor="middle">{escape(group)}</text>')
    for place, name in enumerate(names):
        x = _LEFT + place * 90
        parts.append(f'<rect x="{x}" y="6" width="12" height="12" fill="{_bar_colour(place, names)}"/>')
        parts.append(f'<text x="{x + 17}" y="16">{escape(name)}</text>')
    label = escape(title, quote=True)
    frame = f'viewBox="0 0 {width} {floor + 26}" style="width:{width}px"'
    return f'<svg {frame} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _bar_colour(place: int, names: Sequence[str]) -> str:
    """The later of the systems is the stronger colour."""
    return ("var(--soft)", "var(--mark)", "var(--good)", "var(--bad)")[place % 4] if len(names) > 1 else "var(--mark)"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    return low, high


def _short(value: float) -> str:
    """A number with three significant digits."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 5)}f}".rstrip("0").rstrip(".") if digits else f"{value:,.0f}"
