"""E2HQA: a simple question is rewritten until it is hard; its answer never changes (paper, section 2).

One rewrite: pick an entity E in the question, search for it and gather knowledge, describe E from that knowledge without
naming it, and put the description in E's place. The next rewrite prefers the names that the description brought in, so
that each adds a hop at the far end of the chain. The paper leaves the number of rewrites open; here it
is the larger of two draws from `min_rewrites` to `max_rewrites`, because many chains end before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import BaseModel

from webdancer.config import SynthSettings
from webdancer.errors import ModelError
from webdancer.llm.prompts import fill_prompt, format_pages
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.llm.structured import ask_json
from webdancer.records import QA, Page, QAKind
from webdancer.synth.checks import (
    MIN_EVIDENCE_PAGES,
    base_title,
    check_description,
    check_evidence,
    check_question,
    check_rewrite,
    contains_name,
    fold,
    question_hash,
    text_size,
)
from webdancer.synth.crawl_qa import write_questions
from webdancer.synth.groups import PageGroup
from webdancer.synth.outcomes import Candidate, DropReason
from webdancer.synth.seeds import derive_rng, derive_seed
from webdancer.web.protocol import PageReader, SearchProvider, ToolFailure

MAX_KNOWLEDGE_PAGES = 5
NUM_KNOWLEDGE_HITS = 20
"""Search results read to find them."""


class PickedEntity(BaseModel):
    """The picker's reply; `entity` is empty where no name fits."""

    entity: str
    query: str = ""


class Description(BaseModel):
    """The describer's reply; `description` is empty where the knowledge allows none."""

    description: str
    introduced: list[str] = []
    evidence_urls: list[str] = []


class RewrittenQuestion(BaseModel):
    """The rewriter's reply."""

    question: str


@dataclass(frozen=True, slots=True)
class Web:
    """Where the knowledge about an entity is found."""

    search: SearchProvider
    reader: PageReader
    num_steps: Mapping[str, int] = field(default_factory=dict)
    """As `LinkGraph.num_steps`; pages that are not in it are taken to be led to by none."""
    max_page_chars: int = 20_000
    """Longer pages are passed over."""


class Rewrite(NamedTuple):
    """One link of a chain: a question, and how it came about."""

    qa: QA
    entity: str
    """The name that is gone; empty for the simple question that a chain begins with."""
    introduced: list[str]
    """The names that the description brought in."""


class RewriteProblem(Exception):
    """A rewrite came to nothing; the message says at which step and why."""


async def write_hard_candidates(
    writer: ChatModel,
    rewriter: ChatModel,
    web: Web,
    group: PageGroup,
    page: Page,
    *,
    settings: SynthSettings,
    seed: int,
) -> list[Candidate]:
    """One simple question of the page, rewritten: at most one candidate, with its lineage.

    Where a rewrite comes to nothing, the one before it is taken back and done otherwise, `max_reasks` times; then the
    longest chain found is taken. A question that one page answers alone, because what its entity is described by stands on
    the page that it began with, is rewritten once more than was drawn.

    Raises:
        ModelError, MalformedReply: no simple question came, or the endpoint failed before `min_rewrites`.
    """
    start = await _simple_question(writer, group, page, settings=settings, seed=seed)
    if start is None:
        return []
    rng = derive_rng(seed, group.id, "rewrites")
    target = max(rng.randint(settings.min_rewrites, settings.max_rewrites) for _ in range(2))
    chain: tuple[Rewrite, ...] = (Rewrite(start, "", []),)
    best = chain
    dead_ends, num_taken_back, detail = set[str](), 0, ""
    while not _is_done(chain[-1].qa, target, settings):
        retry = _Try(settings.max_reasks, target, derive_seed(seed, group.id, num_taken_back), frozenset(dead_ends))
        try:
            chain = (*chain, await _rewrite(rewriter, web, chain, retry))
        except (RewriteProblem, ModelError) as problem:
            if isinstance(problem, ModelError) and len(best) <= settings.min_rewrites:
                raise
            detail = detail or f"rewrite {len(chain)} of {target}: {problem}"
            if len(chain) == 1 or num_taken_back == settings.max_reasks:
                break
            dead_ends.update(fold(name) for name in chain[-1].introduced)
            num_taken_back += 1
            chain = chain[:-1]
        best = max(best, chain, key=len)
    final = best[-1].qa
    problem_found = check_evidence(final.evidence_urls, final.evidence_urls)
    if final.num_rewrites < settings.min_rewrites:
        problem_found = (DropReason.TOO_FEW_REWRITES, detail)
    reason, detail = problem_found or (None, "" if _is_done(final, target, settings) else detail)
    return [Candidate(qa=final, reason=reason, detail=detail, lineage=tuple(step.qa for step in best[:-1]))]


def _is_done(qa: QA, target: int, settings: SynthSettings) -> bool:
    """Whether the question has its depth, and needs two pages if more rewrites could still bring that about."""
    needs_two = len(qa.evidence_urls) >= MIN_EVIDENCE_PAGES
    return qa.num_rewrites >= target and (needs_two or qa.num_rewrites >= settings.max_rewrites)


async def _simple_question(
    writer: ChatModel, group: PageGroup, page: Page, *, settings: SynthSettings, seed: int
) -> QA | None:
    """One of the page's simple questions that pass the checks, or None."""
    seed = derive_seed(seed, group.id, "writer")
    written = await write_questions(writer, [page], "simple", settings=settings, seed=seed)
    good = [w for w in written if check_question(w.question.strip(), w.answer.strip(), None) is None]
    if not good:
        return None
    chosen = derive_rng(seed, "choose").choice(good)
    question = " ".join(chosen.question.split())
    return QA(
        id=f"{group.id}-{question_hash(question)}-r0",
        question=question,
        answer=" ".join(chosen.answer.split()),
        kind=QAKind.EASY_TO_HARD,
        evidence_urls=(page.url,),
    )


class _NothingDescribes(RewriteProblem):
    """The knowledge about an entity allows no description."""

    def __init__(self, entity: str) -> None:
        super().__init__(f"the knowledge about {entity!r} allows no description")
        self.entity = entity


@dataclass(frozen=True, slots=True)
class _Try:
    """What rewriting one question at one point of its chain goes by."""

    max_reasks: int
    target: int
    seed: int
    dead_ends: frozenset[str]
    """Folded names that nothing describes, as an earlier try found out."""


async def _rewrite(rewriter: ChatModel, web: Web, chain: Sequence[Rewrite], retry: _Try) -> Rewrite:
    """Rewrite the chain's last question; every attempt has its own seed, so that another entity may be picked.

    Raises:
        RewriteProblem: no attempt succeeded.
        ModelError: the endpoint failed at every attempt.
    """
    qa, replaced = chain[-1].qa, [step.entity for step in chain if step.entity]
    hopeless = {*retry.dead_ends}
    problems: list[Exception] = []
    for attempt in range(1 + retry.max_reasks):
        ask = _Asker(rewriter, retry.max_reasks, derive_seed(retry.seed, "rewrite", qa.num_rewrites, attempt))
        try:
            entity, query = await _pick(ask, qa, chain[-1].introduced)
            if fold(entity) in hopeless:
                raise RewriteProblem(f"picked {entity!r}, which nothing describes")
            num_left = max(0, retry.target - qa.num_rewrites - 1)
            knowledge = await gather_knowledge(web, entity, query, num_left=num_left)
            described = await _describe(ask, qa, entity, knowledge)
            _check_names(described, replaced, retry.dead_ends if num_left else frozenset())
            question = await _replace(ask, qa, entity, described.description)
        except _NothingDescribes as problem:
            hopeless.add(fold(problem.entity))
            problems.append(problem)
            continue
        except (RewriteProblem, ModelError, ToolFailure) as problem:
            problems.append(problem)
            continue
        rewritten = QA(
            id=f"{qa.id.rsplit('-', 2)[0]}-{question_hash(question)}-r{qa.num_rewrites + 1}",
            question=question,
            answer=qa.answer,
            kind=qa.kind,
            evidence_urls=tuple(dict.fromkeys([*described.evidence_urls, *qa.evidence_urls])),
            parent_id=qa.id,
            num_rewrites=qa.num_rewrites + 1,
        )
        return Rewrite(rewritten, entity, [name for name in described.introduced if contains_name(question, name)])
    if all(isinstance(problem, ModelError) for problem in problems):
        raise problems[-1]
    raise RewriteProblem("; ".join(dict.fromkeys(str(problem) for problem in problems)))


def _check_names(described: Description, replaced: Sequence[str], dead_ends: frozenset[str]) -> None:
    """Refuse a description that goes in a circle, or to where the next rewrite has failed before.

    Raises:
        RewriteProblem: it does.
    """
    for name in replaced:
        if contains_name(described.description, name):
            raise RewriteProblem(f"description: brings back {name!r}")
    for name in described.introduced:
        if fold(name) in dead_ends:
            raise RewriteProblem(f"description: brings in {name!r}, which nothing describes")


@dataclass(frozen=True, slots=True)
class _Asker:
    """The rewriter's endpoint with the settings of one try."""

    model: ChatModel
    max_reasks: int
    seed: int

    @property
    def sampling(self) -> Sampling:
        return Sampling(seed=self.seed)


async def _pick(ask: _Asker, qa: QA, introduced: Sequence[str]) -> tuple[str, str]:
    """An entity of the question and the query for it."""
    prompt = fill_prompt("pick_entity", question=qa.question, answer=qa.answer, introduced="\n".join(introduced))
    picked = await ask_json(ask.model, prompt, PickedEntity, sampling=ask.sampling, max_reasks=ask.max_reasks)
    entity = " ".join(picked.entity.split())
    if not fold(entity):
        raise RewriteProblem("no name to replace")
    if not contains_name(qa.question, entity):
        raise RewriteProblem(f"picked {entity!r}, which is not in the question")
    if contains_name(entity, qa.answer) or contains_name(qa.answer, entity):
        raise RewriteProblem(f"picked {entity!r}, which is the answer or a part of it")
    return entity, picked.query.strip() or entity


async def gather_knowledge(web: Web, entity: str, query: str, *, num_left: int = 0) -> list[Page]:
    """Pages about an entity or that mention it: its own page first, then in the order of the search results.

    Args:
        num_left: rewrites that are to follow. Where they can, the other pages are such that as many further pages lead to
            them: what they are about will have to be described in its turn.

    Raises:
        RewriteProblem: no page mentions it.
        ToolFailure: the search engine did not answer.
    """
    pages: dict[str, Page] = {}
    for text in dict.fromkeys((query, entity)):
        for hit in await web.search.search(text, num_results=NUM_KNOWLEDGE_HITS):
            if hit.url in pages:
                continue
            try:
                page = await web.reader.read(hit.url)
            except ToolFailure:
                continue  # one page less to learn from
            if text_size(page.text) <= web.max_page_chars and _mentions(page, entity):
                pages[page.url] = page
        if len(pages) > MAX_KNOWLEDGE_PAGES and any(_is_about(page, entity) for page in pages.values()):
            break
    if not pages:
        raise RewriteProblem(f"no page mentions {entity!r}")
    own = [page for page in pages.values() if _is_about(page, entity)]
    others = [page for page in pages.values() if not _is_about(page, entity)]
    leading = [page for page in others if web.num_steps.get(page.url, 0) >= num_left]
    return (own + (leading or others))[:MAX_KNOWLEDGE_PAGES]


def _mentions(page: Page, entity: str) -> bool:
    """Whether the name stands on the page; Chinese names, whose dots and spaces vary, are compared without them."""
    text = f"{page.title}\n{page.text}"
    return entity.casefold() in text.casefold() or (not entity.isascii() and contains_name(text, entity))


def _is_about(page: Page, entity: str) -> bool:
    return fold(base_title(page.title)) == fold(entity)


async def _describe(ask: _Asker, qa: QA, entity: str, knowledge: Sequence[Page]) -> Description:
    """A description that may take the entity's place."""
    prompt = fill_prompt(
        "describe_entity",
        question=qa.question,
        answer=qa.answer,
        entity=entity,
        pages=format_pages((page.url, page.title, page.text) for page in knowledge),
    )
    reply = await ask_json(ask.model, prompt, Description, sampling=ask.sampling, max_reasks=ask.max_reasks)
    description = " ".join(reply.description.split())
    if not description:
        raise _NothingDescribes(entity)
    text = "\n".join(page.text for page in knowledge)
    problem = check_description(description, entity=entity, answer=qa.answer, question=qa.question, knowledge=text)
    if problem is None and not reply.evidence_urls:
        problem = "names no page that states it"
    if problem is None and (wrong := check_evidence(reply.evidence_urls, [p.url for p in knowledge], num_pages=1)):
        problem = f"{wrong[0]}: {wrong[1]}"
    if problem:
        raise RewriteProblem(f"description: {problem}")
    return reply.model_copy(update={"description": description})


async def _replace(ask: _Asker, qa: QA, entity: str, description: str) -> str:
    """The question with the description in the entity's place."""
    prompt = fill_prompt("rewrite_question", question=qa.question, entity=entity, description=description)
    reply = await ask_json(ask.model, prompt, RewrittenQuestion, sampling=ask.sampling, max_reasks=ask.max_reasks)
    question = " ".join(reply.question.split())
    problem = check_rewrite(question, entity=entity, description=description, answer=qa.answer)
    if problem:
        raise RewriteProblem(f"rewrite: {problem}")
    return question
