"""The synthesis stage: page groups → questions → checks → the files for the later stages (paper, section 2).

    qa_groups.jsonl    one GroupOutcome per page group, appended as it ends; all that a resumed run needs
    qa.jsonl           the questions kept, with their split
    qa_lineage.jsonl   the easier questions that the kept easy_to_hard ones were rewritten from
    qa_dropped.jsonl   the other questions that were written, with the reason
The last three are a pure function of the first and are written whole at the end. A kind is worked on in rounds: how many
groups the next round has follows from what the rounds before it brought, never from time, so a run that was killed and
resumed asks for the same groups and ends with the same records as one that was not.
"""

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from webdancer.calls.scope import call_scope
from webdancer.config import SynthSettings
from webdancer.errors import ConfigError, ModelError
from webdancer.llm.protocol import ChatModel
from webdancer.llm.structured import MalformedReply
from webdancer.records import QA, Page, QAKind
from webdancer.store import RecordWriter, read_records, write_records
from webdancer.synth.bounded import run_bounded
from webdancer.synth.crawl_qa import write_candidates
from webdancer.synth.easy_to_hard import Web, write_hard_candidates
from webdancer.synth.filters import Selector, is_easy
from webdancer.synth.groups import PageGroup, PageSource, build_graph, walk_groups
from webdancer.synth.outcomes import Candidate, FailReason, GroupOutcome
from webdancer.web.protocol import PageReader, SearchProvider

log = logging.getLogger(__name__)

_MIN_ROUND = 8
"""Groups of the smallest round; with fewer, the last missing question would be fetched one by one."""


@dataclass(slots=True)
class SynthCounts:
    """How far the stage is."""

    aims: dict[str, int] = field(default_factory=dict)
    """Questions aimed at, by kind."""
    kept: dict[str, int] = field(default_factory=dict)
    by_rewrites: dict[str, int] = field(default_factory=dict)
    """Kept easy_to_hard questions by their number of rewrites."""
    groups: dict[str, int] = field(default_factory=dict)
    """Page groups that ended, by kind."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Questions that were written and not kept, by reason."""
    failed: dict[str, int] = field(default_factory=dict)
    """Page groups without a question, by reason."""


@dataclass(frozen=True, slots=True)
class _Roles:
    """All that the work on one group needs."""

    pages: PageSource
    web: Web
    writer: ChatModel
    rewriter: ChatModel
    answerer: ChatModel
    settings: SynthSettings
    seed: int


async def synthesise(
    snapshot: PageSource,
    search: SearchProvider,
    reader: PageReader,
    *,
    writer: ChatModel,
    rewriter: ChatModel,
    answerer: ChatModel,
    settings: SynthSettings,
    num_questions: Mapping[str, int],
    seed: int,
    out: Path,
    prefix: str = "",
    assign_splits: Callable[[Sequence[QA]], list[QA]] = list,
    on_progress: Callable[[SynthCounts], None] = lambda counts: None,
) -> SynthCounts:
    """Make questions about a snapshot's pages, until each kind's aim is reached or its page groups are spent.

    Args:
        writer: the writer role; `rewriter`: picker, describer and rewriter; `answerer`: tries whether a question is easy.
        num_questions: aim per kind.
        out: folder of the files; what an earlier run left in it is gone on from.
        prefix: opens the names of the files and all ids, so that training and held-out questions can share a folder.
        assign_splits: gives the kept questions their split (see `split.py`).

    Raises:
        ConfigError: `num_questions` names an unknown kind.
        ModelError: an endpoint failed for every group of a round; the run can be resumed.
        StoreError: the files cannot be written, or another run writes them.
    """
    aims = _aims(num_questions)
    graph = build_graph(snapshot, max_page_chars=settings.max_page_chars)
    roles = _Roles(
        snapshot,
        Web(search, reader, graph.num_steps, settings.max_page_chars),
        writer,
        rewriter,
        answerer,
        settings,
        seed,
    )
    selector = Selector(aims, settings)
    path = out / f"{prefix}qa_groups.jsonl"
    log.info("link graph: %d pages to ask about, %d hubs left out", len(graph.urls), len(graph.hubs))
    with RecordWriter(path, GroupOutcome) as store:
        done = {outcome.id: outcome for outcome in read_records(path, GroupOutcome)}
        counts = SynthCounts(aims={str(kind): aim for kind, aim in aims.items()})
        for kind, aim in aims.items():
            groups = walk_groups(graph, kind, size=settings.pages_per_group, seed=seed, prefix=prefix)
            async for outcomes in _rounds(roles, groups, aim, partial(selector.num_kept, kind), done, store):
                selector.add(outcomes)
                _count(counts, selector, kind, outcomes)
                on_progress(counts)
            log.info("%s: %d of %d questions", kind, selector.num_kept(kind), aim)
        write_records(out / f"{prefix}qa_lineage.jsonl", selector.lineage)
        write_records(out / f"{prefix}qa_dropped.jsonl", selector.dropped)
        write_records(out / f"{prefix}qa.jsonl", assign_splits(selector.kept))
    return counts


def _aims(num_questions: Mapping[str, int]) -> dict[QAKind, int]:
    """The aims in the order of the kinds."""
    known = [str(kind) for kind in QAKind]
    if unknown := sorted(set(num_questions) - set(known)):
        raise ConfigError(f"num_questions: got the kind {unknown[0]!r}, expected one of {', '.join(known)}")
    return {kind: num_questions[kind] for kind in QAKind if num_questions.get(kind, 0) > 0}


def _round_size(aim: int, num_kept: int, num_groups: int, max_groups: int, settings: SynthSettings) -> int:
    """How many groups the next round has: as many as bring what is missing, if they bring what those before did.

    The first round hopes for the most that groups can bring, and no round is larger than all before it together (or
    than what is missing), so that little is made that is not needed.
    """
    missing = aim - num_kept
    if missing <= 0:
        return 0
    per_group = max(num_kept, 1) / num_groups if num_groups else settings.questions_per_group
    wanted = max(_MIN_ROUND, math.ceil(missing / per_group))
    return min(wanted, max(num_groups, missing, _MIN_ROUND), max_groups - num_groups)


def planned_groups(aim: int, kept_per_group: float, settings: SynthSettings) -> int:
    """How many page groups the rounds for `aim` questions will have if each brings `kept_per_group` of them.

    (There may be fewer groups than that in a small snapshot.)
    """
    max_groups, num_groups = math.ceil(aim * settings.max_groups_per_question), 0
    while num_next := _round_size(aim, int(num_groups * kept_per_group), num_groups, max_groups, settings):
        num_groups += num_next
    return num_groups


async def _rounds(
    roles: _Roles,
    groups: Iterator[PageGroup],
    aim: int,
    num_kept: Callable[[], int],
    done: dict[str, GroupOutcome],
    store: RecordWriter[GroupOutcome],
) -> AsyncIterator[list[GroupOutcome]]:
    """The outcomes of one kind's groups, round by round, until the aim is reached or the groups are spent."""
    max_groups, num_groups = math.ceil(aim * roles.settings.max_groups_per_question), 0
    while num_next := _round_size(aim, num_kept(), num_groups, max_groups, roles.settings):
        outcomes = await _run_round(roles, list(islice(groups, num_next)), done, store)
        if not outcomes:
            return
        num_groups += len(outcomes)
        yield outcomes


async def _run_round(
    roles: _Roles, groups: Sequence[PageGroup], done: dict[str, GroupOutcome], store: RecordWriter[GroupOutcome]
) -> list[GroupOutcome]:
    """The outcomes of the groups, in their order; those that are not done yet are made and stored.

    Groups whose endpoint failed are stored only when the round has others too: where all fail, the endpoint is down.

    Raises:
        ModelError: the endpoint failed for all groups.
    """
    outcomes: dict[str, GroupOutcome] = {}

    async def run_one(group: PageGroup) -> None:
        with call_scope(group.id, part=str(group.kind)):
            outcome = done.get(group.id) or await _run_group(roles, group)
        outcomes[group.id] = outcome
        if group.id not in store.ids and outcome.failure is not FailReason.MODEL_ERROR:
            store.append(outcome)

    await run_bounded(run_one, groups, concurrency=roles.settings.concurrency)
    ordered = [outcomes[group.id] for group in groups]
    failed = [outcome for outcome in ordered if outcome.failure is FailReason.MODEL_ERROR]
    if failed and len(failed) == len(ordered):
        raise ModelError(
            f"{store.path.name}: the models failed for all {len(failed)} page groups of a round, first for "
            f"{failed[0].id}: {failed[0].detail}. Nothing is lost: mend the endpoint and run the same command again"
        )
    for outcome in failed:
        if outcome.id not in store.ids:
            store.append(outcome)
    store.sync()
    return ordered


async def _run_group(roles: _Roles, group: PageGroup) -> GroupOutcome:
    """Write and check the questions of one group; whatever happens, it ends as an outcome."""
    failure, detail, candidates = None, "", list[Candidate]()
    try:
        candidates = await _write(roles, group)
        failure = None if candidates else FailReason.NO_QUESTION
    except MalformedReply as error:
        failure, detail = FailReason.MALFORMED, str(error)
    except ModelError as error:
        failure, detail = FailReason.MODEL_ERROR, str(error)
    return GroupOutcome(
        id=group.id, kind=group.kind, urls=group.urls, candidates=tuple(candidates), failure=failure, detail=detail
    )


async def _write(roles: _Roles, group: PageGroup) -> list[Candidate]:
    """The group's candidates, those that are good so far checked for being easy."""
    pages = list(_pages(roles.pages, group))
    if group.kind is QAKind.EASY_TO_HARD:
        candidates = await write_hard_candidates(
            roles.writer, roles.rewriter, roles.web, group, pages[0], settings=roles.settings, seed=roles.seed
        )
    else:
        candidates = await write_candidates(roles.writer, group, pages, settings=roles.settings, seed=roles.seed)
    return [await _check_easy(roles, candidate) for candidate in candidates]


def _pages(source: PageSource, group: PageGroup) -> Iterator[Page]:
    """The group's pages; the graph was built from the same snapshot, so all are there."""
    for url in group.urls:
        page = source.page(url)
        if page is None:
            raise LookupError(f"{group.id}: the snapshot changed while it was read: {url} is gone")
        yield page


async def _check_easy(roles: _Roles, candidate: Candidate) -> Candidate:
    """The candidate, with a reason if it turns out to be easy."""
    if candidate.reason or not roles.settings.drop_easy:
        return candidate
    problem = await is_easy(roles.answerer, roles.web.search, candidate.qa, roles.settings)
    return candidate.model_copy(update={"reason": problem[0], "detail": problem[1]}) if problem else candidate


def _count(counts: SynthCounts, selector: Selector, kind: QAKind, outcomes: Sequence[GroupOutcome]) -> None:
    """Bring the counts up to date after a round."""
    counts.kept[str(kind)] = selector.num_kept(kind)
    counts.groups[str(kind)] = counts.groups.get(str(kind), 0) + len(outcomes)
    counts.dropped = dict(Counter(str(qa.reason) for qa in selector.dropped))
    hard = [qa for qa in selector.kept if qa.kind is QAKind.EASY_TO_HARD]
    counts.by_rewrites = {str(n): num for n, num in sorted(Counter(qa.num_rewrites for qa in hard).items())}
    for outcome in outcomes:
        if outcome.failure:
            counts.failed[str(outcome.failure)] = counts.failed.get(str(outcome.failure), 0) + 1
