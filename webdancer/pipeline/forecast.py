"""What a run will call outside, and what that will cost, before it is begun.

Calls go with units of work: page groups tried for a kind of question, questions sampled, held-out questions put to a system. How
many units there are follows from the settings; how many calls each takes is measured on a pilot (a small run of the same
settings), or supposed (`[forecast]`) where there is none.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from webdancer.calls.ledger import Account, Spent, read_ledger
from webdancer.calls.tape import CallKind
from webdancer.config import Config, EndpointSettings, ProviderSettings
from webdancer.pipeline.evaluating import systems
from webdancer.pipeline.models import ROLES
from webdancer.pipeline.policies import CHECKPOINTS
from webdancer.records import QA, QASplit
from webdancer.store import read_records
from webdancer.synth.outcomes import GroupOutcome
from webdancer.synth.stage import planned_groups

_CHAT, _SEARCH, _PAGE = CallKind.CHAT, CallKind.SEARCH, CallKind.PAGE
_PAGE_TOKENS = 1500
_REPLY_TOKENS = 200
_Add = Callable[[str, str, str, float, float, CallKind], None]
"""Adds calls: stage, part, role, how many, prompt tokens of each, kind."""
_CALL_S = 4.0
"""What a call is supposed to take where none was measured."""


class Need(NamedTuple):
    """The calls of one role in one part of a stage."""

    stage: str
    part: str
    kind: CallKind
    role: str
    calls: float
    tokens: float
    money: float
    seconds: float
    """Added up over calls, which run side by side."""

    def times(self, factor: float) -> "Need":
        """The same for so many times the work."""
        return self._replace(
            calls=self.calls * factor,
            tokens=self.tokens * factor,
            money=self.money * factor,
            seconds=self.seconds * factor,
        )


class Forecast(NamedTuple):
    """All calls that a run will make."""

    needs: list[Need]
    source: str
    """`pilot` or `assumptions`."""
    concurrency: Mapping[str, int]
    """Calls at once, by stage."""

    def total(self, kind: CallKind | None = None) -> Need:
        """The sum over the calls of a kind, or over all."""
        chosen = [need for need in self.needs if kind in (None, need.kind)]
        sums = (sum(getattr(need, name) for need in chosen) for name in ("calls", "tokens", "money", "seconds"))
        return Need("", "", kind or CallKind.CHAT, "", *sums)

    def seconds(self) -> float:
        """How long the stages will wait for calls, as many running side by side as the settings allow."""
        return sum(need.seconds / self.concurrency.get(need.stage, 1) for need in self.needs)

    def as_json(self) -> dict[str, JsonValue]:
        """For forecast.json: the totals, and a row for each role of each stage."""
        rows: dict[tuple[str, str], Need] = {}
        for need in self.needs:
            key = (need.stage, need.role)
            before = rows.get(key, need._replace(calls=0, tokens=0, money=0, seconds=0))
            rows[key] = before._replace(
                calls=before.calls + need.calls,
                tokens=before.tokens + need.tokens,
                money=before.money + need.money,
            )
        llm = self.total(CallKind.CHAT)
        return {
            "source": self.source,
            "llm_calls": round(llm.calls),
            "llm_tokens": round(llm.tokens),
            "search_calls": round(self.total(CallKind.SEARCH).calls),
            "page_calls": round(self.total(CallKind.PAGE).calls),
            "money": round(self.total().money, 4),
            "seconds": round(self.seconds()),
            "rows": [
                {
                    "stage": stage,
                    "role": role,
                    "calls": round(n.calls),
                    "tokens": round(n.tokens),
                    "money": round(n.money, 4),
                }
                for (stage, role), n in rows.items()
            ],
        }


class Work(NamedTuple):
    """How much there is to do."""

    groups: dict[str, int]
    """Page groups tried, by kind."""
    sampled: float
    """Questions put to the teacher."""
    heldout: float


def forecast(config: Config, *, pilot: Path | None = None) -> Forecast:
    """What a run of these settings on one site will call; behind a pilot, what of it is still to come.

    Args:
        pilot: the folder of a finished small run on the same site; None goes by `[forecast]`.
    """
    synth = config.synth
    concurrency = {
        "synth": _at_once(config, synth.concurrency),
        "sample": _at_once(config, config.sample.concurrency),
        "eval": _at_once(config, config.eval.concurrency),
    }
    if pilot is None:
        kept_per_group = dict.fromkeys(synth.num_questions, synth.questions_per_group * config.forecast.share_kept)
        needs = _supposed(config, planned_work(config, kept_per_group))
        return Forecast(needs, "assumptions", concurrency)
    done = work_done(pilot)
    outcomes = list(read_records(pilot / "qa_groups.jsonl", GroupOutcome))
    good = Counter(o.kind.value for o in outcomes for candidate in o.candidates if candidate.reason is None)
    per_group = {kind: good[kind] / num if num else 0.0 for kind, num in done.groups.items()}
    work = planned_work(config, per_group)
    needs = []
    for account, spent in read_ledger(pilot.glob("ledger*.jsonl")).items():
        factor = _factor(account, done, work)
        if factor:
            needs.append(_need(account, spent).times(factor))
    # A pilot so small that no question came to a stage says nothing of it.
    unmeasured = [stage for stage, num in (("sample", done.sampled), ("eval", done.heldout)) if not num]
    needs += [need for need in _supposed(config, work) if need.stage in unmeasured]
    return Forecast(needs, "pilot", concurrency)


def planned_work(config: Config, kept_per_group: Mapping[str, float]) -> Work:
    """The work of a run, if page groups bring so many good questions each."""
    synth = config.synth
    groups, num_kept = {}, 0.0
    for kind, aim in synth.num_questions.items():
        rate = kept_per_group.get(kind, 0.0)
        groups[kind] = planned_groups(aim, rate, synth)
        num_kept += min(aim, groups[kind] * rate)
    heldout = num_kept * synth.heldout_share
    return Work(groups, (num_kept - heldout) * config.sample.sft_share, heldout)


def work_done(run: Path) -> Work:
    """The work that a run has done."""
    groups = Counter(outcome.kind.value for outcome in read_records(run / "qa_groups.jsonl", GroupOutcome))
    sampled = sum(qa.split is QASplit.SFT for qa in read_records(run / "qa.jsonl", QA))
    heldout = sum(1 for _ in read_records(run / "heldout_qa.jsonl", QA))
    return Work(dict(groups), sampled, heldout)


def actual(run: Path) -> dict[str, JsonValue]:
    """What a run has called so far, in the form of `Forecast.as_json`."""
    needs = [_need(account, spent) for account, spent in read_ledger(run.glob("ledger*.jsonl")).items()]
    return Forecast(needs, "ledger", {}).as_json()


def pilot_settings(config: Config, *, share: float, least: int) -> Config:
    """The settings of a pilot: a share of the questions of each kind, and at least so many; nothing is trained."""
    aims = {kind: min(aim, max(least, round(share * aim))) for kind, aim in config.synth.num_questions.items() if aim}
    synth = config.synth.model_copy(update={"num_questions": aims, "heldout_share": 0.3})
    sample = config.sample.model_copy(update={"sft_share": 0.9})
    policy = config.policy.model_copy(update={"base": "none"})
    return config.model_copy(update={"synth": synth, "sample": sample, "policy": policy})


def _need(account: Account, spent: Spent) -> Need:
    tokens = spent.prompt_tokens + spent.completion_tokens
    return Need(
        account.stage, account.part, account.kind, account.role, spent.calls, tokens, spent.money, spent.seconds
    )


def _factor(account: Account, done: Work, work: Work) -> float:
    """How many times the pilot's work a stage of the run has to do; the pilot's page groups are done."""
    before, after = 0.0, 0.0
    match account.stage:
        case "synth":
            before = done.groups.get(account.part, 0)
            after = max(0, work.groups.get(account.part, 0) - before)
        case "sample":
            before, after = done.sampled, work.sampled
        case "eval":
            before, after = done.heldout, work.heldout
        case _:
            return 0.0
    return after / before if before else 0.0


def _at_once(config: Config, stage_limit: int) -> int:
    """Calls at once: as the stage and its busiest endpoint allow."""
    endpoints = [_endpoint(config, role) for role in ROLES]
    return max(1, min(stage_limit, max(endpoint.max_concurrent for endpoint in endpoints)))


def _endpoint(config: Config, role: str) -> EndpointSettings:
    endpoint: EndpointSettings | None = getattr(config.llm, "teacher" if role == "agent" else role)
    return endpoint or config.llm.default


def _price(config: Config, stage: str, kind: CallKind) -> float:
    """Of a search, by the engine that is asked first, or of a page; questions are made from the snapshot, for nothing."""
    name = "snapshot" if stage == "synth" else config.web.search[0] if kind is _SEARCH else config.web.reader
    settings: ProviderSettings | None = getattr(config.web, name, None)
    return settings.price_per_call if settings else 0.0


def _supposed(config: Config, work: Work) -> list[Need]:
    """The calls by `[forecast]`, each with tokens as the limits of prompts suggest."""
    synth, supposed = config.synth, config.forecast
    found: list[Need] = []

    def add(stage: str, part: str, role: str, calls: float, prompt: float, kind: CallKind) -> None:
        if kind is not CallKind.CHAT:
            found.append(Need(stage, part, kind, role, calls, 0, calls * _price(config, stage, kind), calls))
            return
        endpoint = _endpoint(config, role)
        if endpoint.base_url != "scribe":
            money = (prompt * endpoint.price_prompt + _REPLY_TOKENS * endpoint.price_completion) / 1e6
            found.append(
                Need(stage, part, kind, role, calls, calls * (prompt + _REPLY_TOKENS), calls * money, calls * _CALL_S)
            )

    rewrites = (synth.min_rewrites + 2 * synth.max_rewrites) / 3  # the larger of two draws
    for kind, groups in work.groups.items():
        is_hard = kind == "easy_to_hard"
        add("synth", kind, "writer", groups, _PAGE_TOKENS * (1 if is_hard else synth.pages_per_group), _CHAT)
        if is_hard:
            add("synth", kind, "rewriter", 3 * rewrites * groups, _PAGE_TOKENS * 5 / 3, _CHAT)
            add("synth", kind, "search", rewrites * groups, 0, _SEARCH)
        if synth.drop_easy:
            tried = groups * (1 if is_hard else synth.questions_per_group)
            add("synth", kind, "agent", 2 * tried, _PAGE_TOKENS / 2, _CHAT)
            add("synth", kind, "search", tried, 0, _SEARCH)
    attempts = work.sampled * supposed.attempts_per_question
    _add_episodes(add, config, "sample", "", "teacher", attempts)
    add("sample", "", "judge", attempts, _REPLY_TOKENS, _CHAT)
    if config.funnel.use_critic:
        add("sample", "", "critic", work.sampled, _PAGE_TOKENS, _CHAT)
    for system in systems(config):
        if system in CHECKPOINTS or system == "scribe":
            _add_episodes(add, config, "eval", system, "agent" if system == "scribe" else "", work.heldout)
        elif system in ("closed_book", "one_search"):
            add("eval", system, "agent", work.heldout, _REPLY_TOKENS, _CHAT)
        add("eval", system, "judge", work.heldout, _REPLY_TOKENS, _CHAT)
    return found


def _add_episodes(add: _Add, config: Config, stage: str, part: str, role: str, episodes: float) -> None:
    """Turns, searches, visits and their summaries; a local checkpoint (no role) calls no model for its turns."""
    turns, visits = config.forecast.turns_per_attempt, config.forecast.visits_per_attempt
    if role:
        add(stage, part, role, turns * episodes, _PAGE_TOKENS * turns / 2, _CHAT)
    add(stage, part, "search", max(0.0, turns - 1 - visits) * episodes, 0, _SEARCH)
    add(stage, part, "reader", visits * episodes, 0, _PAGE)
    add(stage, part, "summariser", visits * episodes, _PAGE_TOKENS, _CHAT)
