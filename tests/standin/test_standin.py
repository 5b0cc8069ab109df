"""The stand-in: reads pages of python3-doc's shape, and its server counts and fails as it is told to."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from standin.agent import NO_SLIPS
from standin.facts import all_asks, find
from standin.model import StandIn
from standin.questions import Ask, Beside, Named, Relation, parse_question
from standin.reading import Mention, Reading
from standin.server import Troubles, running
from webdancer.config import EndpointSettings
from webdancer.errors import ModelError
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.prompts import fill_prompt, format_pages
from webdancer.llm.protocol import Message, Sampling

QUEUE = """# queue — A synchronized queue class
Source code: Lib/queue.py
With a priority queue, the entries are kept sorted (using the heapq module) and the lowest valued entry is retrieved first.
class queue.Queue(maxsize=0)
Constructor for a FIFO queue.
class queue.SimpleQueue
New in version 3.7.
exception queue.Empty
Queue.put(item, block=True, timeout=5)
Queue.get()
Queue.join()"""
HEAPQ = """# heapq — Heap queue algorithm
Source code: Lib/heapq.py
New in version 2.3.
heapq.heappush(heap, item)
heapq.heappop(heap)"""
PAGES = [
    ("http://d.example/queue", "queue — A synchronized queue class", QUEUE),
    ("http://d.example/heapq", "heapq — Heap queue algorithm", HEAPQ),
]


async def ask(prompt: str) -> dict[str, object]:
    reply = await StandIn(slips=NO_SLIPS).chat([Message("user", prompt)], Sampling(seed=1))
    found: dict[str, object] = json.loads(reply.content)
    return found


def test_facts_of_a_module_page() -> None:
    reading = Reading.of(*PAGES[0][1:])
    facts = {str(question): find(reading, question) for question in all_asks(reading)}
    assert {text: found.answer for text, found in facts.items() if found} == {
        "In which file is the source code of the queue module?": "Lib/queue.py",
        "What does the title of its documentation say of the queue module?": "A synchronized queue class",
        "How many classes does the queue module define?": "2",
        "In which version of Python was SimpleQueue added to the queue module?": "3.7",
        "What is the default value of the parameter maxsize of Queue in the queue module?": "0",
        "What is the default value of the parameter timeout of Queue.put in the queue module?": "5",
        "How many methods of Queue objects are described in the documentation of the queue module?": "3",
    }
    assert reading.mentions("heapq", "module") == [Mention("after", "the entries are kept sorted (using the")]


def test_every_shape_of_question_is_understood_again() -> None:
    target = Beside("module", "after", "kept sorted (using the", Named("What’s New In Python 3.1", "chapter"))
    for relation in Relation:
        numbered = tuple("classes" for _ in range(len(set(re.findall(r"\{\d\}", relation)))))
        details = ("module", "after", "some words of it") if relation is Relation.NAMED else numbered
        question = Ask(relation, target, details, target if relation is Relation.BOTH else None)
        assert parse_question(str(question)) == question


async def test_a_chain_from_page_to_page() -> None:
    prompt = fill_prompt("write_questions", kind="multi_hop", num_questions="5", pages=format_pages(PAGES))
    beside = (
        'the module named right after "the entries are kept sorted (using the" in the documentation of the queue module'
    )
    assert {"question": f"In which version of Python was {beside} added?", "answer": "2.3"}.items() <= next(
        item
        for item in (await ask(prompt))["questions"]
        if "added?" in item["question"]  # type: ignore[attr-defined]
    ).items()


async def test_a_name_is_described_and_replaced() -> None:
    question = "In which version of Python was the heapq module added?"
    picked = await ask(fill_prompt("pick_entity", question=question, answer="2.3", introduced=""))
    assert picked == {"entity": "heapq", "query": "heapq module"}
    described = await ask(
        fill_prompt("describe_entity", question=question, answer="2.3", entity="heapq", pages=format_pages(PAGES))
    )
    assert described["introduced"] == ["queue"]
    assert described["evidence_urls"] == ["http://d.example/queue"]
    description = str(described["description"])
    rewritten = await ask(fill_prompt("rewrite_question", question=question, entity="heapq", description=description))
    assert rewritten == {"question": f"In which version of Python was {description} added?"}


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        ("3.7", True),
        ("version 3.7", True),
        ("Python 3.7", True),
        ("not 3.7", False),
        ("", False),
        ("3.8", False),
        ("3.7 or 3.8", False),
        ("13.7", False),
    ],
)
async def test_judge(answer: str, correct: bool) -> None:
    prompt = fill_prompt("judge", question="In which version?", reference="3.7", answer=answer)
    assert (await ask(prompt))["correct"] is correct


JUDGE = [Message("user", fill_prompt("judge", question="When?", reference="3.7", answer="3.7"))]


async def counts_of(address: str) -> dict[str, object]:
    async with httpx2.AsyncClient() as client:
        found: dict[str, object] = (await client.get(f"{address}/counts")).json()
        return found


async def test_server_counts_calls_by_role() -> None:
    async with running(slips=NO_SLIPS) as address:
        settings = EndpointSettings(base_url=f"{address}/v1", model="standin")
        async with OpenAIChatModel(settings) as model:
            reply = await model.chat(JUDGE, Sampling())
            reask = [*JUDGE, Message("assistant", "?"), Message("user", fill_prompt("reask_json", problem="No."))]
            await model.chat(reask, Sampling())
        counts = await counts_of(address)
    assert json.loads(reply.content)["correct"] is True
    assert reply.usage.prompt_tokens == len(JUDGE[0].content) // 4 + 4
    assert counts["calls"] == {"judge": 1, "judge_reask": 1}
    assert counts["tokens"]["judge"] == {  # type: ignore[index]
        "prompt": reply.usage.prompt_tokens,
        "completion": reply.usage.completion_tokens,
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("429", "status 429"),
        ("5xx", "status 50"),
        ("truncated", "connection (failed|was closed)"),
        ("dropped", "connection failed"),
        ("html", "no chat completion"),
    ],
)
async def test_each_failure_reaches_the_client_as_what_it_is(name: str, said: str) -> None:
    async with running(Troubles(**{f"rate_{name}": 1.0})) as address:  # type: ignore[arg-type]
        settings = EndpointSettings(base_url=f"{address}/v1", model="standin", max_attempts=1)
        async with OpenAIChatModel(settings) as model:
            with pytest.raises(ModelError, match=said):
                await model.chat(JUDGE, Sampling())
        counts = await counts_of(address)
    assert (counts["calls"], counts["failures"]) == ({}, {name: 1})


async def test_a_call_that_fails_at_first_is_answered_and_counted_once() -> None:
    troubles = Troubles(rate_429=0.2, rate_5xx=0.2, rate_dropped=0.1, rate_truncated=0.1, seed=3)
    async with running(troubles) as address:
        settings = EndpointSettings(base_url=f"{address}/v1", model="standin", max_attempts=12)
        async with OpenAIChatModel(settings) as model:
            for number in range(5):
                prompt = fill_prompt("judge", question=f"When {number}?", reference="3.7", answer="3.7")
                await model.chat([Message("user", prompt)], Sampling())
        counts = await counts_of(address)
    assert sum(counts["calls"].values()) == 5  # type: ignore[attr-defined]
    assert sum(counts["failures"].values()) > 0  # type: ignore[attr-defined]


def test_command_tells_its_port() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.standin", "--port", "0"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        try:
            names = {model["id"] for model in httpx2.get(f"http://127.0.0.1:{port}/v1/models").json()["data"]}
        finally:
            process.terminate()
    assert names == {"standin", "standin-reasoner"}
