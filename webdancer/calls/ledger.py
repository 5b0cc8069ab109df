"""What a run consumes outside: calls, tokens, seconds and money, by stage and role; and the budget that bounds it.

The ledger of a run is `ledger.jsonl` in its folder: lines that add up, so that all attempts at a run count, also killed ones.
What is paid for is written at once; free calls (a search in a snapshot) of the last second may be missing after kill -9. Money is
in the unit of the prices in the settings.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from webdancer.calls.tape import CallKind
from webdancer.config import BudgetSettings
from webdancer.errors import BudgetError
from webdancer.records import Record
from webdancer.store import RecordWriter, read_records

_FLUSH_S = 1.0


class Spent(NamedTuple):
    """Calls and what they consumed."""

    calls: int = 0
    failed: int = 0
    """Of the calls, those that brought no reply in the end."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the endpoint had cached."""
    completion_tokens: int = 0
    seconds: float = 0.0
    """Added up over calls, which run side by side."""
    money: float = 0.0
    untold: int = 0
    """Of the calls, those of a model whose endpoint told no usage: their tokens and money are missing above."""

    def plus(self, other: "Spent") -> "Spent":
        """The sum of both."""
        return Spent(
            self.calls + other.calls,
            self.failed + other.failed,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
            self.money + other.money,
            self.untold + other.untold,
        )


class Account(NamedTuple):
    """Whom a call is put down to."""

    stage: str
    part: str
    """Of the stage: a kind of question, an evaluated system."""
    kind: CallKind
    role: str
    who: str
    """The model, the search engine, the reader or the tool."""


class LedgerLine(Record):
    """What was consumed since the line before."""

    id: str
    stage: str
    part: str
    kind: CallKind
    role: str
    who: str
    calls: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float
    money: float
    untold: int = 0


class Ledger:
    """Counts calls and keeps within the budget.

    Args:
        path: the file; None keeps the counts in memory alone.
    """

    def __init__(self, path: Path | None, budget: BudgetSettings) -> None:
        self._budget = budget
        self._writer = RecordWriter(path, LedgerLine) if path else None
        self.totals: dict[Account, Spent] = read_ledger([path]) if path else {}
        self._unwritten: dict[Account, Spent] = {}
        self._by_kind: dict[CallKind, Spent] = dict.fromkeys(CallKind, Spent())
        self._under_way = Counter[CallKind]()
        for account, spent in self.totals.items():
            self._add_up(account, spent)
        self._written_at = time.monotonic()

    @contextmanager
    def under_way(self, kind: CallKind) -> Iterator[None]:
        """A call of a kind is made inside. It counts against the limits from here on: it may wait long for its turn.

        Raises:
            BudgetError: a limit is reached.
        """
        self._check(kind)
        self._under_way[kind] += 1
        try:
            yield
        finally:
            self._under_way[kind] -= 1

    def _check(self, kind: CallKind) -> None:
        """Whether one more call of a kind may be made, if those under way consume what calls did so far.

        Raises:
            BudgetError: a limit is reached.
        """
        budget, total = self._budget, total_of(self._with_under_way())
        calls = {of: spent.calls + self._under_way[of] for of, spent in self._by_kind.items()}
        limits = {
            "max_money": (budget.max_money, total.money),
            "max_llm_tokens": (
                budget.max_llm_tokens if kind is CallKind.CHAT else None,
                total.prompt_tokens + total.completion_tokens,
            ),
            "max_llm_calls": (
                budget.max_llm_calls if kind is CallKind.CHAT else None,
                calls[CallKind.CHAT],
            ),
            "max_search_calls": (
                budget.max_search_calls if kind is CallKind.SEARCH else None,
                calls[CallKind.SEARCH],
            ),
            "max_page_calls": (
                budget.max_page_calls if kind is CallKind.PAGE else None,
                calls[CallKind.PAGE],
            ),
        }
        for name, (limit, used) in limits.items():
            if limit is not None and used >= limit:
                raise BudgetError(
                    f"the budget is spent: budget.{name} = {limit:,}, used {round(used, 4):,}. What is done is kept; raise the "
                    "limit in the settings of --config (or what `build` was given as --max-money or --max-calls) and run the "
                    "same command, and it goes on"
                )

    def _with_under_way(self) -> dict[CallKind, Spent]:
        """By kind, tokens and money with those of calls under way, each at the mean of the calls that ended."""
        found = {}
        for kind, spent in self._by_kind.items():
            factor = 1 + self._under_way[kind] / spent.calls if spent.calls else 1
            found[kind] = Spent(
                prompt_tokens=round(spent.prompt_tokens * factor),
                completion_tokens=round(spent.completion_tokens * factor),
                money=spent.money * factor,
            )
        return found

    def add(self, account: Account, spent: Spent) -> None:
        """Put a call down."""
        self._add_up(account, spent)
        for table in (self.totals, self._unwritten):
            table[account] = table.get(account, Spent()).plus(spent)
        is_paid = account.kind is CallKind.CHAT or spent.money > 0
        if is_paid or time.monotonic() - self._written_at >= _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what has come since the last time."""
        lines, self._unwritten = self._unwritten, {}
        self._written_at = time.monotonic()
        if self._writer is not None:
            for account, spent in lines.items():
                number = len(self._writer.ids)
                self._writer.append(LedgerLine(id=str(number), **account._asdict(), **spent._asdict()))

    def close(self) -> None:
        """Write the rest and release the file."""
        self.flush()
        if self._writer is not None:
            self._writer.close()

    def _add_up(self, account: Account, spent: Spent) -> None:
        self._by_kind[account.kind] = self._by_kind[account.kind].plus(spent)


def read_ledger(paths: Iterable[Path]) -> dict[Account, Spent]:
    """What the ledgers of one or several processes add up to."""
    totals: dict[Account, Spent] = {}
    for path in paths:
        for line in read_records(path, LedgerLine):
            account = Account(line.stage, line.part, line.kind, line.role, line.who)
            spent = Spent(*(getattr(line, name) for name in Spent._fields))
            totals[account] = totals.get(account, Spent()).plus(spent)
    return totals


def total_of(totals: Mapping[Account, Spent] | Mapping[CallKind, Spent]) -> Spent:
    """The sum over all accounts, or kinds."""
    found = Spent()
    for spent in totals.values():
        found = found.plus(spent)
    return found


def as_json(totals: Mapping[Account, Spent]) -> list[JsonValue]:
    """The totals as rows, by stage in the order in which they came, then role."""
    return [
        {**account._asdict(), **spent._asdict(), "seconds": round(spent.seconds, 2), "money": round(spent.money, 6)}
        for account, spent in totals.items()
    ]
