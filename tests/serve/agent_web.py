"""A snapshot of four pages that the scribe can read, and agents over it, for the tests of what serves an agent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from fixtures import MemoryWeb, Reply, ScriptedModel, call_turn, make_page, summary
from starlette.types import ASGIApp

from webdancer.agent.answering import Agent
from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings
from webdancer.llm.protocol import ChatModel, ChatReply, Message, Sampling
from webdancer.records import CotMode, Page
from webdancer.serve.openai_api import serve
from webdancer.web.snapshot import SnapshotWriter

QUESTION = "In which city was the author of the novel The Ninth Door born?"
BOOK = make_page(
    "http://w.example/wiki/The_Ninth_Door",
    "The Ninth Door",
    "# The Ninth Door\nAuthor | Ada Lunt\nIt appeared in 1961.\n",
)
LUNT = make_page(
    "http://w.example/wiki/Ada_Lunt", "Ada Lunt", "# Ada Lunt\nAda Lunt is a novelist. She was born in Velm.\n"
)
VELM = make_page("http://w.example/wiki/Velm", "Velm", "# Velm\nCountry | Belmar\nVelm stands on the River Orn.\n")
ORN = make_page("http://w.example/wiki/Orn", "River Orn", "# River Orn\nThe River Orn is a river of Belmar.\n")
PAGES = (BOOK, LUNT, VELM, ORN)

SEARCH = call_turn("I look for the book.", "search", query=["The Ninth Door", "Ada Lunt"])
VISIT = call_turn("I read her page.", "visit", url=LUNT.url, goal="where she was born")


def write_snapshot(folder: Path, pages: Iterable[Page] = PAGES) -> Path:
    with SnapshotWriter(folder) as writer:
        for page in pages:
            writer.add(page, status=200, headers=[], body=page.text.encode())
    return folder


def agent_over(
    model: ChatModel,
    *,
    pages: Iterable[Page] = PAGES,
    reads_conversations: bool = True,
    summaries: Callable[[Sequence[Message]], str] | None = None,
    mode: CotMode = CotMode.SHORT,
    **settings: object,
) -> Agent:
    """An agent whose model is given, over pages held in memory."""
    web, config = MemoryWeb({page.url: page for page in pages}), AgentSettings(**settings)  # type: ignore[arg-type]
    told = summaries or (lambda messages: summary("She was born in Velm.", "She was born in Velm."))
    toolbox = Toolbox(web, web, ScriptedModel(_forever(told)), config)
    return Agent(
        lambda key: nullcontext(model),
        toolbox,
        config,
        name=model.name,
        mode=mode,
        temperature=0.0,
        seed=0,
        reads_conversations=reads_conversations,
    )


def _forever(reply: Reply) -> Iterable[Reply]:
    while True:
        yield reply


class HangingModel:
    """Gives its replies in turn, and then never answers; knows whether it was given up."""

    name = "hanging"

    def __init__(self, replies: Iterable[str] = ()) -> None:
        self._replies = iter(replies)
        self.asked, self.given_up = asyncio.Event(), asyncio.Event()

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        reply = next(self._replies, None)
        if reply is not None:
            return ChatReply(reply)
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        raise AssertionError("unreachable")


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[str]:
    """The root of an app's addresses while it is served in the background."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(app, "127.0.0.1", 0, port.set_result))
    try:
        yield f"http://127.0.0.1:{await port}"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
