"""Costs are counted by stage, part and role, over attempts; the budget stops what would exceed it."""

import asyncio

import pytest
from fixtures import MemoryWeb, ScriptedModel, make_page

from webdancer.agent.tools import Toolbox
from webdancer.calls.ledger import Account, Ledger, Spent, as_json, read_ledger, total_of
from webdancer.calls.outside import Outside
from webdancer.calls.scope import call_scope
from webdancer.calls.tape import CallKind
from webdancer.config import AgentSettings, BudgetSettings, EndpointSettings
from webdancer.errors import BudgetError, ModelError
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import Usage
from webdancer.synth.bounded import run_bounded

SAID = [Message("user", "hello")]
PRICED = EndpointSettings(price_prompt=2.0, price_cached=0.5, price_completion=10.0)


class SlowSearch(MemoryWeb):
    """A search engine that takes its time."""

    async def search(self, query, **options):
        await asyncio.sleep(0.05)
        return await super().search(query, **options)


def reply(prompt: int, cached: int, completion: int) -> ChatReply:
    usage = Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion, llm_calls=1)
    return ChatReply("x", usage=usage)


async def test_tokens_and_money_are_put_down_by_stage_part_and_role(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", BudgetSettings())
    outside = Outside("eval", ledger=ledger)
    judge = outside.model("judge", ScriptedModel([reply(1000, 400, 20), reply(500, 0, 30)]), PRICED)
    failing = outside.model("judge", ScriptedModel([ModelError("down")], name="other"), PRICED)
    with call_scope("sft/q1", part="sft"):
        await judge.chat(SAID, Sampling())
        await judge.chat(SAID, Sampling())
    with pytest.raises(ModelError):
        await failing.chat(SAID, Sampling())
    ledger.close()
    # (600 + 500) * 2 + 400 * 0.5 + 50 * 10 = 2,900 for a million
    rows = read_ledger([tmp_path / "ledger.jsonl"])
    spent = rows[Account("eval", "sft", CallKind.CHAT, "judge", "scripted")]
    assert spent._replace(seconds=0) == Spent(2, 0, 1500, 400, 50, 0, pytest.approx(0.0029))
    assert rows[Account("eval", "", CallKind.CHAT, "judge", "other")]._replace(seconds=0) == Spent(1, 1)
    assert [row["role"] for row in as_json(rows)] == ["judge", "judge"]  # type: ignore[index,call-overload]


async def test_searches_and_pages_are_counted_with_their_price():
    page = make_page("http://w.example/a", "a", "a")
    outside = Outside("ask")
    web = MemoryWeb({page.url: page})
    search = outside.metered_search(web, name="serper", price=0.001)
    await search.search("a")
    await search.search("b")
    await outside.reader(web, name="jina", price=0.002).read(page.url)
    totals = {(a.kind, a.who): (s.calls, round(s.money, 6)) for a, s in outside.ledger.totals.items()}
    assert totals == {(CallKind.SEARCH, "serper"): (2, 0.002), (CallKind.PAGE, "jina"): (1, 0.002)}


async def test_attempts_add_up_and_the_budget_holds_over_all_of_them(tmp_path):
    for _ in range(2):
        ledger = Ledger(tmp_path / "ledger.jsonl", BudgetSettings(max_llm_calls=3))
        model = Outside("s", ledger=ledger).model("a", ScriptedModel([reply(1, 0, 1)] * 9), PRICED)
        await model.chat(SAID, Sampling())
        ledger.close()
    ledger = Ledger(tmp_path / "ledger.jsonl", BudgetSettings(max_llm_calls=3))
    model = Outside("s", ledger=ledger).model("a", ScriptedModel([reply(1, 0, 1)] * 9), PRICED)
    await model.chat(SAID, Sampling())
    with pytest.raises(BudgetError, match=r"budget.max_llm_calls = 3, used 3.*raise the limit"):
        await model.chat(SAID, Sampling())
    ledger.close()


@pytest.mark.parametrize(
    ("budget", "num_made"),
    [
        ({"max_money": 0.003}, 2),  # 0.002 a call: the second is let through at 0.002, the third meets 0.004
        ({"max_llm_tokens": 1000}, 1),
        ({"max_search_calls": 0}, 4),  # of no concern to a model
    ],
)
async def test_each_limit_stops_the_kind_of_call_that_it_is_about(budget, num_made):
    outside = Outside("s", ledger=Ledger(None, BudgetSettings(**budget)))
    asked = ScriptedModel([reply(1000, 0, 0)] * 4)
    model = outside.model("a", asked, PRICED)
    for _ in range(4):
        try:
            await model.chat(SAID, Sampling())
        except BudgetError:
            break
    assert len(asked.calls) == num_made


async def test_calls_under_way_end_when_the_budget_is_spent():
    outside = Outside("s", ledger=Ledger(None, BudgetSettings(max_llm_calls=2)))
    model = outside.model("a", ScriptedModel([reply(1, 0, 1)] * 9, delay_s=0.05), PRICED)
    ended = []

    async def work(number: int) -> None:
        await model.chat(SAID, Sampling())
        ended.append(number)
        await asyncio.sleep(0.05)
        await model.chat(SAID, Sampling())

    with pytest.raises(BudgetError):
        await run_bounded(work, range(5), concurrency=2)
    assert ended == [0, 1]  # paid for, and not cancelled; no other began


async def test_calls_that_wait_in_an_endpoints_queue_count_against_the_limit():
    outside = Outside("s", ledger=Ledger(None, BudgetSettings(max_llm_calls=3)))
    asked = ScriptedModel([reply(1, 0, 1)] * 20, delay_s=0.02)
    model = outside.model("a", asked, PRICED)
    ended = await asyncio.gather(*(model.chat(SAID, Sampling()) for _ in range(20)), return_exceptions=True)
    assert len(asked.calls) == 3
    assert sum(isinstance(end, BudgetError) for end in ended) == 17


async def test_money_counts_calls_under_way_at_what_calls_have_cost_so_far():
    outside = Outside("s", ledger=Ledger(None, BudgetSettings(max_money=0.0099)))
    asked = ScriptedModel([reply(1000, 0, 0)] * 20, delay_s=0.02)
    model = outside.model("a", asked, PRICED)
    await model.chat(SAID, Sampling())  # 0.002
    await asyncio.gather(*(model.chat(SAID, Sampling()) for _ in range(19)), return_exceptions=True)
    assert len(asked.calls) == 5  # 0.002 + 4 * 0.002: the fifth begins at 0.008


async def test_a_paid_call_is_in_the_file_before_the_next_one_begins(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", BudgetSettings())
    model = Outside("s", ledger=ledger).model("a", ScriptedModel([reply(1, 0, 1)] * 2), PRICED)
    for number in (1, 2):
        await model.chat(SAID, Sampling())
        assert total_of(read_ledger([tmp_path / "ledger.jsonl"])).calls == number  # what kill -9 would leave
    ledger.close()


async def test_calls_that_told_no_usage_are_counted_apart(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", BudgetSettings())
    untold = ChatReply("x", usage=Usage(llm_calls=1), usage_told=False)
    model = Outside("s", ledger=ledger).model("a", ScriptedModel([reply(5, 0, 1), untold, untold]), PRICED)
    for _ in range(3):
        await model.chat(SAID, Sampling())
    ledger.close()
    total = total_of(read_ledger([tmp_path / "ledger.jsonl"]))
    assert (total.calls, total.untold, total.prompt_tokens) == (3, 2, 5)


async def test_no_call_costs_less_than_nothing_where_cached_tokens_stand_beside_the_prompt():
    outside = Outside("s")
    await outside.model("a", ScriptedModel([reply(100, 900, 0)]), PRICED).chat(SAID, Sampling())
    assert total_of(outside.ledger.totals).money == pytest.approx(100 * 0.5 / 1e6)


async def test_calls_beside_the_one_that_met_the_limit_were_lost_though_paid_for():
    web = SlowSearch({})
    outside = Outside("s", ledger=Ledger(None, BudgetSettings(max_search_calls=2)))
    toolbox = Toolbox(outside.metered_search(web, name="serper", price=0.001), web, ScriptedModel([]), AgentSettings())
    with pytest.raises(BudgetError):
        await toolbox.call("search", {"query": ["one", "two", "three"]})
    assert total_of(outside.ledger.totals)._replace(seconds=0) == Spent(calls=2, money=pytest.approx(0.002))
