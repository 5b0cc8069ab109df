"""CRAWLQA: questions of a wanted kind, written from a group of linked pages (paper, section 2).

The writer role answers with JSON; its form is checked by schema with bounded re-asking, its content by code: every
question that was written ends as a candidate, with the reason where it does not do.
"""

import unicodedata
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator

from webdancer.config import SynthSettings
from webdancer.llm.prompts import fill_prompt, format_pages
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.llm.structured import ask_json
from webdancer.records import QA, Page, QAKind
from webdancer.synth.checks import check_evidence, check_question, question_hash
from webdancer.synth.groups import PageGroup
from webdancer.synth.outcomes import Candidate, DropReason
from webdancer.synth.seeds import derive_seed


def _number_as_text(value: object) -> object:
    """Models like to write a count as a JSON number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class WrittenQuestion(BaseModel):
    """One question as the writer gives it."""

    question: str
    answer: Annotated[str, BeforeValidator(_number_as_text)]
    evidence_urls: list[str]


class WrittenQuestions(BaseModel):
    """The writer's reply."""

    questions: list[WrittenQuestion]


async def write_questions(
    writer: ChatModel, pages: Sequence[Page], kind: str, *, settings: SynthSettings, seed: int
) -> list[WrittenQuestion]:
    """Ask the writer for questions of `kind`: a QAKind's value, or `simple`.

    Raises:
        ModelError: the endpoint failed for good.
        MalformedReply: no reply was of the form asked for.
    """
    prompt = fill_prompt(
        "write_questions",
        kind=kind,
        num_questions=str(settings.questions_per_group),
        pages=format_pages((page.url, page.title, page.text) for page in pages),
    )
    sampling = Sampling(seed=seed)
    reply = await ask_json(writer, prompt, WrittenQuestions, sampling=sampling, max_reasks=settings.max_reasks)
    return reply.questions[: settings.questions_per_group]


async def write_candidates(
    writer: ChatModel, group: PageGroup, pages: Sequence[Page], *, settings: SynthSettings, seed: int
) -> list[Candidate]:
    """The questions that the writer makes of one group, each with what is wrong with it, if anything.

    Raises:
        ModelError, MalformedReply: as `write_questions`.
    """
    seed = derive_seed(seed, group.id, "writer")
    written = await write_questions(writer, pages, group.kind, settings=settings, seed=seed)
    candidates: dict[str, Candidate] = {}
    for item in written:
        question, answer = " ".join(item.question.split()), " ".join(item.answer.split())
        if group.kind is QAKind.COUNT:
            answer = unicodedata.normalize("NFKC", answer).replace(",", "")
        evidence = tuple(dict.fromkeys(url.strip() for url in item.evidence_urls))
        problem = check_question(question, answer, group.kind) or check_evidence(evidence, group.urls)
        reason, detail = problem or (None, "")
        qa = QA(
            id=f"{group.id}-{question_hash(question)}",
            question=question,
            answer=answer,
            kind=group.kind,
            evidence_urls=evidence,
        )
        while qa.id in candidates:  # the writer repeated itself
            qa = qa.model_copy(update={"id": f"{qa.id}x"})
            reason, detail = DropReason.DUPLICATE, f"{group.id}-{question_hash(question)}"
        candidates[qa.id] = Candidate(qa=qa, reason=reason, detail=detail)
    return list(candidates.values())
