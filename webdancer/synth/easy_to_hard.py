"""E2HQA: a simple question is rewritten until it is hard; its answer never changes (paper, section 2).

One rewrite: pick an entity E in the question, search for it and gather knowledge, describe E from that knowledge without
naming it, and put the description in E's place. The next rewrite prefers the names that the description brought in, so
that each adds a hop at the far end of the chain. The paper leaves the number of rewrites open; here it is drawn evenly
from `min_rewrites` to `max_rewrites` for every question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
)
from webdancer.synth.crawl_qa import write_questions
from webdancer.synth.groups import MAX_TEXT_CHARS, PageGroup
from webdancer.synth.outcomes import Candidate, DropReason
from webdancer.synth.seeds import derive_rng, derive_seed
from webdancer.web.protocol import PageReader, SearchProvider, ToolFailure

MAX_KNOWLEDGE_PAGES = 5


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


class Rewrite(NamedTuple):
    """One rewrite that succeeded."""

    qa: QA
    entity: str
    """The name that is gone."""
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

    A rewrite that fails ends the chain at the depth reached. A question that one page answers alone, because what its
    entity is described by stands on the page that it began with, is rewritten once more than was drawn.

    Raises:
        ModelError, MalformedReply: no simple question came, or the endpoint failed before `min_rewrites`.
    """
    start = await _simple_question(writer, group, page, settings=settings, seed=seed)
    if start is None:
        return []
    target = derive_rng(seed, group.id, "rewrites").randint(settings.min_rewrites, settings.max_rewrites)
    lineage, introduced, replaced, detail = [start], list[str](), list[str](), ""
    while lineage[-1].num_rewrites < target or (
        len(lineage[-1].evidence_urls) < MIN_EVIDENCE_PAGES and lineage[-1].num_rewrites < settings.max_rewrites
    ):
        try:
            step = await _rewrite(
                rewriter, web, lineage[-1], introduced, replaced, settings=settings, seed=derive_seed(seed, group.id)
            )
        except (RewriteProblem, ModelError) as problem:
            if isinstance(problem, ModelError) and lineage[-1].num_rewrites < settings.min_rewrites:
                raise
            detail = f"rewrite {len(lineage)} of {target}: {problem}"
            break
        lineage.append(step.qa)
        introduced = step.introduced
        replaced.append(step.entity)
    final = lineage[-1]
    reason = DropReason.TOO_FEW_REWRITES if final.num_rewrites < settings.min_rewrites else None
    if reason is None and (wrong := check_evidence(final.evidence_urls, final.evidence_urls)):
        reason, detail = wrong
    return [Candidate(qa=final, reason=reason, detail=detail, lineage=tuple(lineage[:-1]))]


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


async def _rewrite(
    rewriter: ChatModel,
    web: Web,
    qa: QA,
    introduced: Sequence[str],
    replaced: Sequence[str],
    *,
    settings: SynthSettings,
    seed: int,
) -> Rewrite:
    """One rewrite; every try has its own seed, so that another entity may be picked.

    Raises:
        RewriteProblem: no try succeeded.
        ModelError: the endpoint failed at every try.
    """
    problems: list[Exception] = []
    for attempt in range(1 + settings.max_reasks):
        ask = _Asker(rewriter, settings.max_reasks, derive_seed(seed, "rewrite", qa.num_rewrites, attempt))
        try:
            entity, query = await _pick(ask, qa, introduced)
            knowledge = await gather_knowledge(web, entity, query)
            described = await _describe(ask, qa, entity, knowledge)
            if circular := [name for name in replaced if contains_name(described.description, name)]:
                raise RewriteProblem(f"description: brings back {circular[0]!r}")
            question = await _replace(ask, qa, entity, described.description)
        except (RewriteProblem, ModelError, ToolFailure) as problem:
            problems.append(problem)
            continue
        group_id = qa.id.rsplit("-", 2)[0]
        rewritten = QA(
            id=f"{group_id}-{question_hash(question)}-r{qa.num_rewrites + 1}",
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


async def gather_knowledge(web: Web, entity: str, query: str) -> list[Page]:
    """Pages about an entity or that mention it: its own page first, then in the order of the search results.

    Raises:
        RewriteProblem: no page mentions it.
        ToolFailure: the search engine did not answer.
    """
    pages: dict[str, Page] = {}
    for text in dict.fromkeys((query, entity)):
        for hit in await web.search.search(text, num_results=2 * MAX_KNOWLEDGE_PAGES):
            if hit.url in pages:
                continue
            try:
                page = await web.reader.read(hit.url)
            except ToolFailure:
                continue  # one page less to learn from
            if len(page.text) <= MAX_TEXT_CHARS and entity.casefold() in f"{page.title}\n{page.text}".casefold():
                pages[page.url] = page
        if any(_is_about(page, entity) for page in pages.values()):
            break
    if not pages:
        raise RewriteProblem(f"no page mentions {entity!r}")
    return sorted(pages.values(), key=lambda page: not _is_about(page, entity))[:MAX_KNOWLEDGE_PAGES]


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
        raise RewriteProblem(f"the knowledge about {entity!r} allows no description")
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
