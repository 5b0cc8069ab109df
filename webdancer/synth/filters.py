"""Which of the written questions are used: duplicates, too common answers and easy questions are dropped with a reason.

The paper says that pairs which a plain answer or one retrieval already gets right are dropped; thresholds are not
published. Here `is_easy` asks for both answers and compares them by exact match, and `Selector` is a pure function of
the outcomes in their order: who comes first stays.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from pydantic import BaseModel

from webdancer.agent.tools import format_hits
from webdancer.config import SynthSettings
from webdancer.errors import ModelError
from webdancer.judge.match import exact_match
from webdancer.llm.prompts import fill_prompt
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.llm.structured import MalformedReply, ask_json
from webdancer.records import QA, QAKind
from webdancer.synth.checks import fold, tokens
from webdancer.synth.outcomes import Candidate, DroppedQA, DropReason, GroupOutcome
from webdancer.web.protocol import SearchProvider, ToolFailure

MAX_OVERLAP = 0.8
"""Questions with one answer and a common evidence page that share more of their words (Jaccard) ask the same."""


MAX_SAME_PAGES = 4
"""Questions that one set of evidence pages may answer; more of them differ in little but a year."""


class _DirectAnswer(BaseModel):
    answer: str


async def answer_without_tools(model: ChatModel, question: str, *, max_reasks: int = 2) -> str:
    """The model's own answer, from memory.

    Raises:
        ModelError: the endpoint failed, or no reply was of the form asked for.
    """
    return await _answer(model, question, "", max_reasks)


async def answer_from_one_search(
    model: ChatModel, search: SearchProvider, question: str, *, num_results: int = 10, max_reasks: int = 2
) -> str:
    """The model's answer from the results of one search whose query is the question.

    Raises:
        ModelError: the endpoint failed, or no reply was of the form asked for.
        ToolFailure: the search engine did not answer.
    """
    hits = await search.search(question, num_results=num_results)
    return await _answer(model, question, format_hits(question, hits), max_reasks)


async def _answer(model: ChatModel, question: str, results: str, max_reasks: int) -> str:
    prompt = fill_prompt("answer_directly", question=question, results=results)
    reply = await ask_json(model, prompt, _DirectAnswer, sampling=Sampling(), max_reasks=max_reasks)
    return reply.answer.strip()


async def is_easy(
    model: ChatModel, search: SearchProvider, qa: QA, settings: SynthSettings
) -> tuple[DropReason, str] | None:
    """Whether the question is answered rightly without tools or from one search; None where it is not."""
    for reason in (DropReason.EASY_CLOSED_BOOK, DropReason.EASY_ONE_SEARCH):
        try:
            if reason is DropReason.EASY_CLOSED_BOOK:
                answer = await answer_without_tools(model, qa.question, max_reasks=settings.max_reasks)
            else:
                answer = await answer_from_one_search(model, search, qa.question, max_reasks=settings.max_reasks)
        except MalformedReply:
            continue
        except (ModelError, ToolFailure) as error:
            return DropReason.EASY_CHECK_FAILED, str(error)
        if exact_match(qa.answer, answer):
            return reason, answer
    return None


class Selector:
    """Takes candidates in their order until each kind's aim is reached.

    Args:
        num_questions: aim per kind.
        settings: `max_answer_share` bounds how many of the aim may have the same answer, though two always may.
    """

    def __init__(self, num_questions: dict[QAKind, int], settings: SynthSettings) -> None:
        self._aims = num_questions
        self._max_same = {k: max(2, int(settings.max_answer_share * num)) for k, num in num_questions.items()}
        self._questions: dict[str, str] = {}
        self._by_answer: dict[str, list[QA]] = defaultdict(list)
        self._pages: Counter[frozenset[str]] = Counter()
        self._answers: dict[QAKind, Counter[str]] = defaultdict(Counter)
        self.kept: list[QA] = []
        self.lineage: list[QA] = []
        self.dropped: list[DroppedQA] = []

    def num_kept(self, kind: QAKind) -> int:
        return self._answers[kind].total()

    def add(self, outcomes: Iterable[GroupOutcome]) -> None:
        """Keep or drop every candidate of the outcomes."""
        for outcome in outcomes:
            for candidate in outcome.candidates:
                self._add(candidate)

    def _add(self, candidate: Candidate) -> None:
        qa = candidate.qa
        problem = (candidate.reason, candidate.detail) if candidate.reason else self._problem(qa)
        if problem:
            reason, detail = problem
            self.dropped.append(DroppedQA(id=qa.id, question=qa.question, kind=qa.kind, reason=reason, detail=detail))
            return
        answer = fold(qa.answer)
        self._questions[fold(qa.question)] = qa.id
        self._by_answer[answer].append(qa)
        self._answers[qa.kind][answer] += 1
        self._pages[frozenset(qa.evidence_urls)] += 1
        self.kept.append(qa)
        self.lineage += candidate.lineage

    def _problem(self, qa: QA) -> tuple[DropReason, str] | None:
        """Why a question is not wanted beside those kept so far."""
        if other := self._questions.get(fold(qa.question)):
            return DropReason.DUPLICATE, other
        answer, words = fold(qa.answer), set(tokens(qa.question))
        for same in self._by_answer[answer]:
            if set(same.evidence_urls) == set(qa.evidence_urls):
                return DropReason.DUPLICATE, same.id
            theirs = set(tokens(same.question))
            overlap = len(words & theirs) / len(words | theirs)
            if overlap > MAX_OVERLAP and set(same.evidence_urls) & set(qa.evidence_urls):
                return DropReason.NEAR_DUPLICATE, f"{same.id} ({overlap:.2f})"
        if self._pages[frozenset(qa.evidence_urls)] >= MAX_SAME_PAGES:
            return DropReason.PAGES_TOO_COMMON, qa.evidence_urls[0]
        if self._answers[qa.kind][answer] >= self._max_same[qa.kind]:
            return DropReason.ANSWER_TOO_COMMON, qa.answer
        if self.num_kept(qa.kind) >= self._aims[qa.kind]:
            return DropReason.SURPLUS, ""
        return None
