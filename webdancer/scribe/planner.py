"""The searcher's next move, worked out from the messages alone (paper, section 3.1).

The question is worked off from the inside out with what the visited pages said. The first step that is not known becomes
the next thing to find: search for the thing that the step is about, visit its page, and where this page is silent, try
other queries, other pages and at last pages that tell the fact the other way round. A hasty searcher takes the word of a post
that the results show, and goes on from there.
"""

from collections.abc import Callable
from enum import StrEnum
from random import Random
from typing import NamedTuple

from webdancer.scribe.claims import NOUNS as CLAIM_NOUNS
from webdancer.scribe.claims import Claim, find_claim, is_thread
from webdancer.scribe.guess import guess_answer
from webdancer.scribe.knowledge import Knowledge, Outcome, may_be_same
from webdancer.scribe.logical import Count, Expr, Intersect, ListOf, LogicalForm, Lookup, Name
from webdancer.scribe.mentions import base_name, words_of
from webdancer.scribe.observations import Episode, Hit, Report, gather_knowledge, title_of
from webdancer.scribe.question import parse_goal, parse_question, write_goal
from webdancer.scribe.question_shapes import LIST_NOUNS, NOUNS
from webdancer.scribe.reader import read_page

MAX_DEAD_ENDS = 4
"""Other pages tried for one step before the answer is guessed."""
MAX_TRIES = 2
"""How often a call is made that fails."""

Step = Lookup | Count


class Move(StrEnum):
    """Kinds of moves."""

    SEARCH = "search"
    VISIT = "visit"
    ANSWER = "answer"


class Plan(NamedTuple):
    """The next move and what a thought can say about it."""

    move: Move
    form: LogicalForm | None
    knowledge: Knowledge
    step: Step | None = None
    """What is looked for: a value, or a whole list."""
    queries: tuple[str, ...] = ()
    url: str = ""
    title: str = ""
    goal: str = ""
    answer: str = ""
    is_guess: bool = False
    is_retry: bool = False
    """The way that was tried before led nowhere."""
    claims: tuple[Claim, ...] = ()
    """Posts whose word was taken since the last turn."""
    is_proven: bool = True
    """No step rests on a post."""


def plan_next(episode: Episode, rng: Random, *, vary: bool, is_hasty: Callable[[Lookup], bool] | None = None) -> Plan:
    """The next move of an episode.

    Args:
        episode: what happened so far.
        rng: drawn from where there are several good wordings.
        vary: whether to draw at all, or to take the usual wording always.
        is_hasty: whether the word of a post is good enough for a step, the same at every turn; None: for no step.
    """
    form = parse_question(episode.question)
    knowledge = gather_knowledge(episode)
    if form is None:
        return _plan_unread(episode, knowledge)
    if is_hasty is None:
        return _plan_form(episode, form, knowledge, rng, vary=vary)
    believed = _take_claims(episode, form, knowledge, is_hasty)
    plan = _plan_form(episode, form, knowledge, rng, vary=vary)
    if not believed:
        return plan
    before = episode._replace(turns=episode.turns[:-1])
    known = _take_claims(before, form, gather_knowledge(before), is_hasty)
    return plan._replace(claims=tuple(claim for claim in believed if claim not in known), is_proven=False)


def _take_claims(
    episode: Episode, form: LogicalForm, knowledge: Knowledge, is_hasty: Callable[[Lookup], bool]
) -> list[Claim]:
    """Add what posts say about missing steps to what is known; the posts, in the order of the steps."""
    hits = [hit for turn in episode.turns for results in turn.results for hit in results.hits]
    taken: list[Claim] = []
    while isinstance(missing := knowledge.work_off(form).missing, Lookup) and is_hasty(missing):
        claim = find_claim(hits, missing)
        if claim is None or claim in taken:
            break
        knowledge.add_fact(claim.as_fact(), claim.url)
        taken.append(claim)
    return taken


def _plan_form(episode: Episode, form: LogicalForm, knowledge: Knowledge, rng: Random, *, vary: bool) -> Plan:
    """The next move of an episode whose question was understood."""
    outcome = knowledge.work_off(form)
    if outcome.value is not None:
        return Plan(Move.ANSWER, form, knowledge, answer=outcome.value.text)
    if episode.is_forced or outcome.missing is None:
        return _guess(form, knowledge, episode)
    return _Seeker(episode, form, knowledge, rng, vary).plan(outcome)


def _guess(form: LogicalForm | None, knowledge: Knowledge, episode: Episode) -> Plan:
    hits = [hit for turn in episode.turns for results in turn.results for hit in results.hits]
    answer = guess_answer(form, knowledge, hits, episode.question)
    return Plan(Move.ANSWER, form, knowledge, answer=answer, is_guess=True)


class _Seeker:
    """Looks for one missing step."""

    def __init__(self, episode: Episode, form: LogicalForm, knowledge: Knowledge, rng: Random, vary: bool) -> None:
        self._episode, self._form, self._knowledge = episode, form, knowledge
        self._rng, self._vary = rng, vary
        self._hits = _all_hits(episode)
        self._asked = {r.query for turn in episode.turns for r in turn.results}
        self._failed: dict[str, int] = {}
        for turn in episode.turns:
            if turn.error:
                for item in (*turn.queries, *turn.urls):
                    self._failed[item] = self._failed.get(item, 0) + 1

    def plan(self, outcome: Outcome) -> Plan:
        """The next call, or a guess where all ways are exhausted."""
        missing = outcome.missing
        assert missing is not None
        assert isinstance(missing.of, Name)
        name = missing.of
        step = self._step(missing)
        seen = self._visited_for(step)
        own = [hit for hit in self._hits if is_page_of(hit, name) and hit.url not in seen]
        own.sort(key=lambda hit: (base_name(hit.title).hint != name.hint, not _is_likely(hit, step)))
        if own and not self._is_failed(own[0].url):
            return self._visit(step, own[0], is_retry=bool(seen))
        for number, query in enumerate(self._queries(missing, name)):
            if query not in self._asked and not self._is_failed(query):
                queries = (query, *self._second_query(missing)) if number == 0 else (query,)
                return Plan(Move.SEARCH, self._form, self._knowledge, step, queries, is_retry=number > 0 or bool(seen))
            others = [h for h in self._others(name, query) if h.url not in seen and not self._is_failed(h.url)]
            if others and len(seen) < MAX_DEAD_ENDS:
                return self._visit(step, others[0], is_retry=True)
        return _guess(self._form, self._knowledge, self._episode)

    def _step(self, missing: Lookup | ListOf) -> Step:
        """The missing step; for a list of the question's own, with the years that count."""
        if isinstance(missing, Lookup):
            return missing
        if isinstance(self._form, Count) and self._form.items.kind == missing.kind:
            return Count(missing, self._form.first, self._form.last)
        return Count(missing)

    def _is_failed(self, item: str) -> bool:
        return self._failed.get(item, 0) >= MAX_TRIES

    def _visited_for(self, step: Step) -> set[str]:
        """Pages that were already asked for this step, whatever the wording of the goal."""
        return {report.url for turn in self._episode.turns for report in turn.reports if same_step(report.goal, step)}

    def _queries(self, missing: Lookup | ListOf, name: Name) -> list[str]:
        """Queries for the page of a thing, the most promising first."""
        words = _relation_words(missing)
        plain = f"{name.text} {name.hint}".strip()
        queries = [plain, f"{plain} {words}", f"{name.text} {words}", name.text, f'"{name.text}"']
        if isinstance(missing, Lookup) and missing.relation in CLAIM_NOUNS:
            queries.insert(0, f"{plain} {CLAIM_NOUNS[missing.relation]}")
        elif self._vary and not self._asked & set(queries):
            first = self._rng.choice((plain, plain, f"{plain} {words}"))
            queries.sort(key=lambda query: query != first)
        return list(dict.fromkeys(" ".join(query.split()) for query in queries))

    def _second_query(self, missing: Lookup | ListOf) -> tuple[str, ...]:
        """At the start of an intersection: the other side's name, if the first search can bring both."""
        if not isinstance(self._form, Intersect) or self._asked or not self._vary or self._rng.random() < 0.5:
            return ()
        leaf: Expr = self._form.right.of
        while not isinstance(leaf, Name):
            leaf = leaf.of
        assert isinstance(leaf, Name)
        return (f"{leaf.text} {leaf.hint}".strip(),) if leaf != missing.of else ()

    def _others(self, name: Name, query: str) -> list[Hit]:
        """Hits of a query that are not about the thing itself but mention it."""
        found = [
            hit
            for turn in self._episode.turns
            for results in turn.results
            if results.query == query
            for hit in results.hits
            if not is_thread(hit)
            and (name.text in hit.snippet or name.text in hit.title or _last_word(name) in hit.title)
        ]
        return sorted(dict.fromkeys(found), key=lambda hit: name.text not in hit.title)

    def _visit(self, step: Step, hit: Hit, *, is_retry: bool) -> Plan:
        goal = write_goal(step, self._rng if self._vary else Random(0))
        return Plan(
            Move.VISIT, self._form, self._knowledge, step, url=hit.url, title=hit.title, goal=goal, is_retry=is_retry
        )


def _all_hits(episode: Episode) -> list[Hit]:
    """All search results, each page once, those of later searches first."""
    hits: dict[str, Hit] = {}
    for turn in reversed(episode.turns):
        for results in turn.results:
            for hit in results.hits:
                hits.setdefault(hit.url, hit)
    return list(hits.values())


def is_page_of(hit: Hit, name: Name) -> bool:
    """Whether a search result is the page of a thing, as far as its title tells."""
    title = base_name(hit.title)
    if title.text.casefold() != name.text.casefold():
        return False
    return may_be_same(name, Name(name.text, title.hint))


def _is_likely(hit: Hit, step: Step) -> bool:
    """Whether one of several pages of a title is the one that tells the step, as far as its address and snippet show."""
    if isinstance(step, Count):
        return ("Author page of" in hit.snippet) == (step.items.kind == "papers_written")
    if step.relation in ("funded_by", "num_samples"):
        return "/pdf/" in hit.url
    return not any(words in hit.snippet for words in ("Author page of", "Account of")) and "/pdf/" not in hit.url


def same_step(goal: str, step: Step) -> bool:
    """Whether a goal asked for the step."""
    asked = parse_goal(goal)
    if isinstance(step, Count) and isinstance(asked, Count):
        return asked.items == step.items
    return asked == step


def _relation_words(missing: Lookup | ListOf) -> str:
    """The words of a relation or list, for a query."""
    table = NOUNS if isinstance(missing, Lookup) else LIST_NOUNS
    key = missing.relation if isinstance(missing, Lookup) else missing.kind
    phrase = next(p for p in table if p.path == (key,))
    words = f"{phrase.before} {phrase.after}".split()
    return " ".join(
        w for w in words if w not in {"the", "of", "in", "a", "by", "on", "was", "that", "where", "is", "which"}
    )


def _last_word(name: Name) -> str:
    return name.text.rsplit(" ", 1)[-1]


def _plan_unread(episode: Episode, knowledge: Knowledge) -> Plan:
    """A question that the grammar does not cover: search for it, read the best pages, answer with what they say."""
    query = episode.question.rstrip("?？ ")
    searched = [r for turn in episode.turns for r in turn.results]
    visited = {report.url: report for turn in episode.turns for report in turn.reports}
    tried = {url for turn in episode.turns for url in turn.urls}
    if episode.is_forced or len(episode.turns) > MAX_DEAD_ENDS:
        return _guess(None, knowledge, episode)
    if not any(r.query == query for r in searched) and not any(query in turn.queries for turn in episode.turns):
        return Plan(Move.SEARCH, None, knowledge, queries=(query,))
    useful = [report for report in visited.values() if report.evidence]
    answers = [value for report in useful if (value := _nearest_value(report, episode))]
    if answers:
        return Plan(Move.ANSWER, None, knowledge, answer=answers[0])
    if not useful:
        for hit in _all_hits(episode)[:3]:
            if hit.url not in tried:
                return Plan(Move.VISIT, None, knowledge, url=hit.url, title=hit.title, goal=episode.question)
    return _guess(None, knowledge, episode)


def _nearest_value(report: Report, episode: Episode) -> str:
    """The value of the fact that shares most words with the question, among those that a page was reported to state."""
    title = episode.titles.get(report.url) or title_of(report.url)
    asked = words_of(episode.question)
    facts = read_page(title, f"{report.summary}\n{report.evidence}").facts
    told = [fact for fact in facts if not words_of(fact.value.text) <= asked]
    if not told:
        return ""
    return max(told, key=lambda f: len(asked & (words_of(f.line) | words_of(f.relation.replace("_", " "))))).value.text
