"""Throughput of the agent loop while the model is slow: many episodes at once against an ideal loop that costs nothing.

    python benchmarks/loop.py [--episodes 512] [--latency-ms 200] [--turns 10]

Every model call sleeps for the latency and returns a turn of the given script: search, visit, …, answer. Search, page
reading and the summariser answer at once, from memory, so all that is measured beside the sleep is our own work: prompts,
parsing, tools, transcript. The ideal takes as long as the episode whose calls sleep longest, however many there are; the
ratio is ideal / measured. Two settings: every call takes the same time, so that all episodes want the processor at
once, turn after turn (the worst case), and calls that differ by up to a fifth, as those of a real endpoint at least do.
The peers, in the same run: a thread an episode, as the authors' demo and most agents do it, here with our own turn of work and a
model call that blocks; and bare `asyncio.sleep` calls, which show what asyncio itself costs.

Prints the figures and writes benchmarks/out/loop.json.
"""

import argparse
import asyncio
import gc
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
from webdancer.config import AgentSettings
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import CotMode, Page, Status
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


async def run_ours(latencies_s: Latencies) -> None:
    web = MemoryWeb()
    toolbox = Toolbox(web, web, Summariser(), AgentSettings())
    model = SlowModel(latencies_s)

    await asyncio.gather(*(play(model, toolbox, number) for number in range(len(latencies_s))))


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


def run_threads(latencies_s: Latencies) -> None:
    """A thread an episode, each with an event loop of its own in which nothing else runs."""
    web, model = MemoryWeb(), BlockingModel(latencies_s)
    toolbox = Toolbox(web, web, Summariser(), AgentSettings())
    with ThreadPoolExecutor(len(latencies_s)) as threads:
        list(threads.map(lambda number: asyncio.run(play(model, toolbox, number)), range(len(latencies_s))))


async def run_bare(latencies_s: Latencies) -> None:
    async def episode(calls: list[float]) -> None:
        for latency_s in calls:
            await asyncio.sleep(latency_s)

    await asyncio.gather(*(episode(calls) for calls in latencies_s))


def compare(latencies_s: Latencies, rounds: int) -> dict[str, dict[str, float]]:
    """Both loops alternately; medians."""
    ideal_s = max(sum(calls) for calls in latencies_s)
    num_steps = sum(len(calls) for calls in latencies_s)
    sides: dict[str, Callable[[], None]] = {
        "bare sleeps": lambda: asyncio.run(run_bare(latencies_s)),
        "webdancer": lambda: asyncio.run(run_ours(latencies_s)),
        "thread an episode": lambda: run_threads(latencies_s),
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
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    gc.freeze()  # as the command line does
    result = {}
    print(f"{args.episodes} episodes of {args.turns} turns, {args.latency_ms:.0f} ms a call; medians of {args.rounds}")
    for setting, spread in (("same latency", 0.0), ("± 20 %", 0.2)):
        rng = random.Random(0)
        latencies_s = [
            [args.latency_ms / 1000 * rng.uniform(1 - spread, 1 + spread) for _ in range(args.turns)]
            for _ in range(args.episodes)
        ]
        for name, figures in compare(latencies_s, args.rounds).items():
            result[f"{setting}, {name}"] = figures
            print(
                f"{setting:13} {name:12} {figures['share_of_ideal']:.1%} of ideal  {figures['cpu_ms_per_step']:.3f} ms CPU a step"
            )
    out = Path(__file__).parent / "out" / "loop.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
