"""Puts models, search engines and readers behind the tape and the ledger, so that every call outside is recorded and counted.

Outermost is the tape: what it answers costs nothing. Behind it the ledger lets a call through or, where the budget is spent,
stops the stage, and puts down what it consumed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from pydantic import JsonValue

from webdancer.calls.ledger import Account, Ledger, Spent
from webdancer.calls.scope import current_part
from webdancer.calls.tape import CallKind, Codec, Tape
from webdancer.config import BudgetSettings, EndpointSettings
from webdancer.llm.protocol import ChatModel, ChatReply, Message, Sampling
from webdancer.records import Page
from webdancer.web.fetch import FetchResult
from webdancer.web.protocol import PageReader, SearchHit, SearchProvider

T = TypeVar("T")
_CHAT, _SEARCH, _PAGE, _TEXT = Codec(ChatReply), Codec(list[SearchHit]), Codec(Page), Codec(str)
"""Of what models, search engines, readers and tools reply."""


class Outside:
    """All that one stage calls outside of the run.

    Args:
        stage: its name, for the ledger.
        ledger: None counts in memory, without a budget.
        tape: None neither records nor replays.
    """

    def __init__(self, stage: str, *, ledger: Ledger | None = None, tape: Tape | None = None) -> None:
        self.stage, self.tape = stage, tape
        self.ledger = ledger or Ledger(None, BudgetSettings())

    @property
    def is_replay(self) -> bool:
        """Whether no call is made: neither keys nor a network are needed then."""
        return self.tape is not None and self.tape.is_replay

    def account(self, kind: CallKind, role: str, who: str) -> Account:
        """Whom a call that is made now is put down to."""
        return Account(self.stage, current_part(), kind, role, who)

    def model(self, role: str, model: ChatModel, endpoint: EndpointSettings) -> ChatModel:
        """A role's model."""
        return OutsideModel(self, role, model, endpoint)

    def metered_search(self, search: SearchProvider, *, name: str, price: float = 0.0) -> SearchProvider:
        """A search engine whose calls are counted; `price` is that of a call."""
        return _MeteredSearch(self, search, name, price)

    def taped_search(self, search: SearchProvider) -> SearchProvider:
        """A search engine, or several that stand in for each other, whose answers are recorded or replayed."""
        return search if self.tape is None else _TapedSearch(self.tape, search)

    def reader(self, reader: PageReader, *, name: str, price: float = 0.0) -> PageReader:
        """A reader of pages."""
        return _Reader(self, reader, name, price)

    async def tool(self, name: str, arguments: dict[str, JsonValue], make: Callable[[], Awaitable[str]]) -> str:
        """One call of a tool besides search and visit."""
        return await self.call(self.account(CallKind.TOOL, "tool", name), arguments, make, _TEXT)

    def keep_live_page(self, page: Page, response: FetchResult) -> None:
        """Put a page that was fetched live into the recording, where there is one."""
        if self.tape is not None:
            headers = list(response.headers.items())
            self.tape.keep_live_page(page, status=response.status, headers=headers, body=response.raw)

    async def call(
        self,
        account: Account,
        request: JsonValue,
        make: Callable[[], Awaitable[T]],
        codec: Codec[T],
        cost: Callable[[T], Spent] = lambda reply: Spent(),
    ) -> T:
        """One call: from the tape, or made within the budget, counted and recorded.

        Args:
            cost: tokens and money of a reply; calls and seconds are counted here.

        Raises:
            BudgetError: the budget is spent.
            ReplayError: replayed, and the tape does not hold the call.
        """

        if self.tape is None:
            return await self.counted(account, make, cost)
        who = f"{account.role} {account.who}"
        return await self.tape.call(account.kind, who, request, lambda: self.counted(account, make, cost), codec)

    async def counted(self, account: Account, make: Callable[[], Awaitable[T]], cost: Callable[[T], Spent]) -> T:
        """One call, made within the budget and counted.

        Raises:
            BudgetError: the budget is spent.
        """
        await asyncio.sleep(0)  # a time limit that has passed already is heard here, before anything is sent
        with self.ledger.under_way(account.kind):
            started = time.perf_counter()
            spent = Spent(failed=1)
            try:
                reply = await make()
                spent = cost(reply)
                return reply
            finally:
                self.ledger.add(account, spent._replace(calls=1, seconds=time.perf_counter() - started))


class OutsideModel:
    """A model that is asked outside of the run.

    A call whose time is over before it begins is given up before anything is sent, and recorded as that.
    """

    def __init__(self, outside: Outside, role: str, model: ChatModel, endpoint: EndpointSettings) -> None:
        self._outside, self._model, self._endpoint = outside, model, endpoint
        self._account = partial(outside.account, CallKind.CHAT, role, model.name)

    @property
    def name(self) -> str:
        return self._model.name

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        request: JsonValue = None
        if self._outside.tape is not None:
            said: list[JsonValue] = [[m.role, m.content, m.reasoning] for m in messages]
            request = [said, repr(sampling)]
        return await self._outside.call(
            self._account(), request, lambda: self._model.chat(messages, sampling), _CHAT, self._cost
        )

    def _cost(self, reply: ChatReply) -> Spent:
        usage, endpoint = reply.usage, self._endpoint
        price_cached = endpoint.price_prompt if endpoint.price_cached is None else endpoint.price_cached
        cached = min(usage.cached_tokens, usage.prompt_tokens)  # some gateways count them beside the prompt's
        money = (
            (usage.prompt_tokens - cached) * endpoint.price_prompt
            + cached * price_cached
            + usage.completion_tokens * endpoint.price_completion
        )
        return Spent(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=cached,
            completion_tokens=usage.completion_tokens,
            money=money / 1e6,
            untold=int(not reply.usage_told),
        )


class _MeteredSearch:
    def __init__(self, outside: Outside, search: SearchProvider, name: str, price: float) -> None:
        self._outside, self._search, self._price = outside, search, price
        self._account = partial(outside.account, CallKind.SEARCH, "search", name)

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        return await self._outside.counted(
            self._account(),
            lambda: self._search.search(query, num_results=num_results, year=year),
            lambda hits: Spent(money=self._price),
        )


class _TapedSearch:
    def __init__(self, tape: Tape, search: SearchProvider) -> None:
        self._tape, self._search = tape, search

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        return await self._tape.call(
            CallKind.SEARCH,
            "search",
            [query, num_results, year],
            lambda: self._search.search(query, num_results=num_results, year=year),
            _SEARCH,
        )


class _Reader:
    def __init__(self, outside: Outside, reader: PageReader, name: str, price: float) -> None:
        self._outside, self._reader, self._price = outside, reader, price
        self._account = partial(outside.account, CallKind.PAGE, "reader", name)

    async def read(self, url: str) -> Page:
        return await self._outside.call(
            self._account(), url, lambda: self._reader.read(url), _PAGE, lambda page: Spent(money=self._price)
        )
