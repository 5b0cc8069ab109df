"""What an agent does on its way to an answer: the figures that show why one checkpoint is right more often than another."""

from collections.abc import Sequence

from webdancer.records import Record, Trajectory
from webdancer.scribe.thoughts import rests_on_post


class Behaviour(Record):
    """Means per episode."""

    searches: float
    visits: float
    """Calls of `visit`, whatever came of them."""
    posts_relied_on: float
    """Thoughts that take a forum post's word; counted by the words of the scribe, which its pupils repeat. 0 elsewhere."""


def behaviour(episodes: Sequence[Trajectory]) -> Behaviour:
    """Behaviour over episodes; zeros where there are none."""
    steps = [step for episode in episodes for step in episode.steps]
    num = max(1, len(episodes))
    return Behaviour(
        searches=round(sum(step.tool == "search" for step in steps) / num, 3),
        visits=round(sum(step.tool == "visit" for step in steps) / num, 3),
        posts_relied_on=round(sum(rests_on_post(step.thought) for step in steps) / num, 3),
    )
