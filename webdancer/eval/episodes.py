"""Episodes as HTML: every step with its thought, call and observation."""

import json
from html import escape

from webdancer.records import Step, Trajectory


def episode_html(trajectory: Trajectory) -> str:
    """All steps of an episode; whatever it holds stays text."""
    return "".join(_step(step) for step in trajectory.steps)


def _step(step: Step) -> str:
    parts = [f'<div class="thought">{escape(step.thought)}</div>'] if step.thought else []
    if step.tool:
        parts.append(f"<div><b>{escape(step.tool)}</b> {escape(json.dumps(step.arguments, ensure_ascii=False))}</div>")
    if step.raw:
        parts.append(f"<pre>{escape(step.raw)}</pre>")
    if step.observation:
        parts.append(f"<pre>{escape(step.observation)}</pre>")
    return f'<div class="step{" error" if step.error else ""}">{"".join(parts)}</div>'
