"""A forecast is arithmetic over measured or supposed rates; the arithmetic is done by hand here."""

import pytest

from webdancer.calls.ledger import Account, Ledger, Spent
from webdancer.calls.tape import CallKind
from webdancer.config import (
    BudgetSettings,
    Config,
    EndpointSettings,
    ForecastSettings,
    LlmSettings,
    ProviderSettings,
    SynthSettings,
    WebSettings,
)
from webdancer.pipeline.forecast import Work, forecast, pilot_settings, planned_work, work_done
from webdancer.records import QA, QAKind, QASplit
from webdancer.store import write_records
from webdancer.synth.outcomes import Candidate, DropReason, GroupOutcome
from webdancer.synth.stage import planned_groups

PRICED = EndpointSettings(base_url="http://h/v1", model="m", price_prompt=1.0, price_completion=10.0)


def config(**num_questions: int) -> Config:
    return Config(
        synth=SynthSettings(num_questions=num_questions, questions_per_group=2, heldout_share=0.2),
        llm=LlmSettings(default=PRICED),
        forecast=ForecastSettings(share_kept=0.5, attempts_per_question=2, turns_per_attempt=4, visits_per_attempt=1),
    )


def test_rounds_are_planned_as_the_stage_makes_them():
    settings = SynthSettings(questions_per_group=2)
    # 20 wanted, one a group: first round 10 (20 / 2 hoped for), bound by nothing; 10 are left: 10 more.
    assert planned_groups(20, 1.0, settings) == 20
    assert planned_groups(20, 0.0, settings) == 120  # six groups a question, then the kind is given up
    assert planned_groups(0, 1.0, settings) == 0


def test_the_work_follows_from_the_yield():
    work = planned_work(config(multi_hop=20), {"multi_hop": 1.0})
    assert work.groups == {"multi_hop": 20}
    assert work.heldout == pytest.approx(4)  # 20 % of 20
    assert work.sampled == pytest.approx(8)  # half of the other 16


def test_supposed_calls_are_those_of_the_rates():
    found = forecast(config(multi_hop=20))
    calls = {(need.stage, need.part, need.role): need.calls for need in found.needs}
    assert calls["synth", "multi_hop", "writer"] == 20  # one a group
    assert calls["synth", "multi_hop", "agent"] == 80  # 40 candidates, each tried twice
    assert calls["sample", "", "teacher"] == pytest.approx(64)  # 8 questions, 2 attempts, 4 turns
    assert calls["sample", "", "judge"] == pytest.approx(16)
    assert calls["sample", "", "summariser"] == pytest.approx(16)
    assert calls["sample", "", "search"] == pytest.approx(32)  # 4 turns: 2 searches, 1 visit, the answer
    writer = next(need for need in found.needs if need.role == "writer")
    assert writer.money == pytest.approx(20 * (6000 * 1.0 + 200 * 10.0) / 1e6)  # 4 pages of 1,500 tokens; 200 written
    assert found.as_json()["source"] == "assumptions"


def test_a_pilot_is_scaled_to_the_work_that_is_left(tmp_path):
    outcomes, train = [], []
    for number in range(10):  # of the pilot's ten groups five bring a good question
        qa = QA(id=f"q{number}", question="?", answer="a", kind=QAKind.MULTI_HOP, evidence_urls=("u", "v"))
        reason = None if number % 2 else DropReason.LEAKS_ANSWER
        outcomes.append(
            GroupOutcome(
                id=f"multi_hop-{number}",
                kind=QAKind.MULTI_HOP,
                urls=("u",),
                candidates=(Candidate(qa=qa, reason=reason),),
            )
        )
        if reason is None:
            train.append(qa.model_copy(update={"split": QASplit.SFT}))
    write_records(tmp_path / "qa_groups.jsonl", outcomes)
    write_records(tmp_path / "qa.jsonl", train[:4])
    write_records(tmp_path / "heldout_qa.jsonl", train[4:])
    ledger = Ledger(tmp_path / "ledger.jsonl", BudgetSettings())
    for stage, part, role, calls in (
        ("synth", "multi_hop", "writer", 12),
        ("sample", "", "teacher", 40),
        ("eval", "teacher", "agent", 6),
        ("crawl", "", "none", 99),
    ):
        account = Account(stage, part, CallKind.CHAT, role, "m")
        ledger.add(account, Spent(calls, 0, calls * 100, 0, calls * 10, calls * 2.0, calls * 0.5))
    ledger.close()
    assert work_done(tmp_path) == Work({"multi_hop": 10}, 4, 1)
    found = forecast(config(multi_hop=20), pilot=tmp_path)
    groups = planned_groups(20, 0.5, config(multi_hop=20).synth)
    calls = {(need.stage, need.role): need.calls for need in found.needs}
    assert calls == {
        ("synth", "writer"): pytest.approx(12 * (groups - 10) / 10),  # the pilot's groups are done
        ("sample", "teacher"): pytest.approx(40 * 8 / 4),
        ("eval", "agent"): pytest.approx(6 * 4 / 1),
    }
    total = found.total(CallKind.CHAT)
    assert total.money == pytest.approx(0.5 * total.calls)
    assert total.tokens == pytest.approx(110 * total.calls)


def test_a_pilot_is_small_and_has_every_kind():
    small = pilot_settings(config(count=5, multi_hop=200, intersection=0), share=0.1, least=4)
    assert small.synth.num_questions == {"count": 4, "multi_hop": 20}
    assert small.policy.base == "none"


def test_searches_and_pages_of_paid_services_are_in_the_forecast():
    web = WebSettings(
        search=("serper", "snapshot"),
        reader="jina",
        serper=ProviderSettings(price_per_call=0.001),
        jina=ProviderSettings(price_per_call=0.01),
    )
    found = forecast(config(multi_hop=20).model_copy(update={"web": web}))
    money = {(need.stage, need.role): need.money for need in found.needs if need.kind is not CallKind.CHAT}
    assert money["synth", "search"] == 0  # of the snapshot
    assert money["sample", "search"] == pytest.approx(32 * 0.001)  # 8 questions, 2 attempts, 2 searches
    assert money["sample", "reader"] == pytest.approx(16 * 0.01)


def test_a_stage_that_no_question_of_the_pilot_came_to_is_forecast_by_assumptions(tmp_path):
    qa = QA(id="q", question="?", answer="a", kind=QAKind.MULTI_HOP, evidence_urls=("u", "v"), split=QASplit.SFT)
    outcome = GroupOutcome(id="multi_hop-0", kind=QAKind.MULTI_HOP, urls=("u",), candidates=(Candidate(qa=qa),))
    write_records(tmp_path / "qa_groups.jsonl", [outcome])
    write_records(tmp_path / "qa.jsonl", [qa])
    write_records(tmp_path / "heldout_qa.jsonl", [])
    found = forecast(config(multi_hop=20), pilot=tmp_path)
    supposed = forecast(config(multi_hop=20))  # 20 kept there too: one a group
    assert {need for need in found.needs if need.stage == "eval"} == {
        need for need in supposed.needs if need.stage == "eval"
    }
    assert {need.stage for need in found.needs} == {"eval"}
