"""Throughput of the agent loop while the model is slow: many episodes at once against an ideal loop that costs nothing.

    python benchmarks/loop.py [--episodes 512] [--latency-ms 200] [--turns 10] [--waves 4]

Every model call sleeps for the latency and returns a turn of the given script: search, visit, …, answer. Search, page
reading and the summariser answer at once, from memory, so all that is measured beside the sleep is our own work: prompts,
parsing, tools, transcript. The ideal takes as long as the sleeps alone, with every place taken at once by the next episode;
the ratio is ideal / measured. Calls take the same time each, so that all episodes want the processor at once, turn after turn
(the worst case), or differ by up to a fifth, as those of a real endpoint at least do. And there are as many episodes as places,
so that all begin at one moment and the time until the last has begun is lost, or several waves of them for as many places, as
in a run of sampling, evaluation or RL.
The peers, in the same run: a thread an episode, as the authors' demo and most agents do it, here with our own turn of work and a
model call that blocks; and bare `asyncio.sleep` calls, which show what asyncio itself costs.

Prints the figures and writes benchmarks/out/loop.json.
"""

import argparse
import asyncio
import heapq
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.collector import collect_rarely
from webdancer.config import AgentSettings
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import CotMode, Page, Status
from webdancer.synth.bounded import run_bounded
from webdancer.web.protocol import SearchHit

URL = "http://a.example/page"
TEXT = "The Orsk Bridge was designed by Ada Lunt and opened in 1931. " * 20
HITS = [SearchHit(f"Page {number}", f"{URL}{number}", None, TEXT[:200]) for number in range(10)]
PAGE = Page(url=URL, title="Page", text=TEXT, fetched_at=datetime.now(UTC), content_hash="0" * 64)
SEARCH = '<think>I search.</think>\n<tool_call>\n{"name": "search", "arguments": {"query": ["Orsk Bridge %d"]}}\n</tool_call>'
VISIT = (  # %d is filled in turn by turn
    "<think>I read the page.</think>\n<tool_call>\n"
    '{"name": "visit", "arguments": {"url": "http://a.example/page", "goal": "architect %d"}}\n</tool_call>'
)
ANSWER = "<think>The page says it.</think>\n<answer>Ada Lunt</answer>"

Latencies = list[list[float]]
"""Seconds of each call, by episode and turn."""


class SlowModel:
    """Plays the script; the episode's number is its seed."""

    name = "slow"

    def __init__(self, latencies_s: Latencies) -> None:
        self._latencies_s = latencies_s

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        turn = len(messages) // 2 - 1  # system and question, then two a turn
        await asyncio.sleep(self._latencies_s[sampling.seed or 0][turn])
        return self._reply(turn, sampling)

    def _reply(self, turn: int, sampling: Sampling) -> ChatReply:
        if turn == len(self._latencies_s[sampling.seed or 0]) - 1:
            return ChatReply(ANSWER)
        return ChatReply((VISIT if turn % 2 else SEARCH) % turn)


class Summariser:
    """Answers at once."""

    name = "summariser"

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        return ChatReply('{"rational": "r", "evidence": "Ada Lunt designed it.", "summary": "Ada Lunt designed it."}')


class MemoryWeb:
    """The same ten results for every query, one page for every URL."""

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        return HITS[:num_results]

    async def read(self, url: str) -> Page:
        return PAGE


async def run_ours(latencies_s: Latencies, places: int) -> None:
    web = MemoryWeb()
    toolbox = Toolbox(web, web, Summariser(), AgentSettings())
    model = SlowModel(latencies_s)
    await run_bounded(lambda number: play(model, toolbox, number), range(len(latencies_s)), concurrency=places)


async def play(model: "SlowModel", toolbox: Toolbox, number: int) -> None:
    """One episode."""
    trajectory = await run_episode(
        model,
        toolbox,
        trajectory_id=str(number),
        qa_id=str(number),
        question="Who designed the Orsk Bridge?",
        settings=AgentSettings(),
        mode=CotMode.SHORT,
        sampling=Sampling(),
        seed=number,
    )
    assert trajectory.status is Status.ANSWERED


class BlockingModel(SlowModel):
    """The same, but its call holds the thread that makes it."""

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        turn = len(messages) // 2 - 1  # system and question, then two a turn
        time.sleep(self._latencies_s[sampling.seed or 0][turn])  # noqa: ASYNC251  # that it blocks is the point
        return self._reply(turn, sampling)


def run_threads(latencies_s: Latencies, places: int) -> None:
    """A thread an episode, each with an event loop of its own in which nothing else runs."""
    web, model = MemoryWeb(), BlockingModel(latencies_s)
    toolbox = Toolbox(web, web, Summariser(), AgentSettings())
    with ThreadPoolExecutor(places) as threads:
        list(threads.map(lambda number: asyncio.run(play(model, toolbox, number)), range(len(latencies_s))))


async def run_bare(latencies_s: Latencies, places: int) -> None:
    async def episode(calls: list[float]) -> None:
        for latency_s in calls:
            await asyncio.sleep(latency_s)

    await run_bounded(episode, latencies_s, concurrency=places)


def ideal_seconds(latencies_s: Latencies, places: int) -> float:
    """Until the last episode ends, where nothing but sleep takes time and episodes begin in their order."""
    free_at = [0.0] * places
    for calls in latencies_s:
        heapq.heapreplace(free_at, free_at[0] + sum(calls))
    return max(free_at)


def compare(latencies_s: Latencies, places: int, rounds: int) -> dict[str, dict[str, float]]:
    """All sides alternately; medians."""
    ideal_s = ideal_seconds(latencies_s, places)
    num_steps = sum(len(calls) for calls in latencies_s)
    sides: dict[str, Callable[[], None]] = {
        "bare sleeps": lambda: asyncio.run(run_bare(latencies_s, places)),
        "webdancer": lambda: asyncio.run(run_ours(latencies_s, places)),
        "thread an episode": lambda: run_threads(latencies_s, places),
    }
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            rows[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {
            "share_of_ideal": round(ideal_s / statistics.median(wall for wall, _ in values), 4),
            "cpu_ms_per_step": round(1000 * statistics.median(cpu for _, cpu in values) / num_steps, 4),
        }
        for name, values in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=512, help="at once")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--waves", type=int, default=4, help="of episodes, one behind the other")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    collect_rarely()  # as the command line does
    result = {}
    print(
        f"{args.episodes} episodes at once, of {args.turns} turns, {args.latency_ms:.0f} ms a call; medians of {args.rounds}"
    )
    for spread, waves in itertools.product((0.0, 0.2), (1, args.waves)):
        setting = f"{args.episodes * waves} episodes, " + (f"± {spread:.0%}" if spread else "same latency")
        rng = random.Random(0)
        latencies_s = [
            [args.latency_ms / 1000 * rng.uniform(1 - spread, 1 + spread) for _ in range(args.turns)]
            for _ in range(args.episodes * waves)
        ]
        for name, figures in compare(latencies_s, args.episodes, args.rounds).items():
            result[f"{setting}, {name}"] = figures
            print(
                f"{setting:28} {name:18} {figures['share_of_ideal']:.1%} of ideal  {figures['cpu_ms_per_step']:.3f} ms CPU a step"
            )
    out = Path(__file__).parent / "out" / "loop.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
