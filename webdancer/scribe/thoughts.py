"""The searcher's thoughts: what was found, whether it is what was needed, what comes next, and another plan after a dead end.

A short thought is one sentence on what was found and one on what comes next, so that an episode fits a small context; a long
one, for the long-CoT mode, also recalls what is known and checks it. All names and values are those of the observations. No
wording is longer than nine words without a name in it, so that a long episode does not seem to repeat itself.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from webdancer.scribe.logical import Count, Expr, Intersect, ListOf, LogicalForm, Lookup, Name, depth
from webdancer.scribe.mentions import base_name
from webdancer.scribe.observations import Episode, Turn, title_of
from webdancer.scribe.planner import Move, Plan, Step, is_page_of, same_step
from webdancer.scribe.question import write_list, write_name, write_noun, write_years
from webdancer.scribe.reader import read_page
from webdancer.scribe.relations import RELATIONS

_BELIEVED = "A post says that {claim}."

_NEED = (
    "First I need {what}.",
    "The question starts from {what}.",
    "To begin, I have to find {what}.",
    "I must find {what} first.",
)
_THEN = ("Then I need {then}.", "After that comes the search for {then}.", "With it I can look for {then}.")
_SEARCH = ("I search for {name}.", "A search for {name} should help.", "Let me look for {name}.")
_NEXT = ("Now I need {what}.", "Still missing: {what}.", "Next I need {what}.", "I still have to find {what}.")
_OPEN = (
    "The result “{title}” is the right page; I read it.",
    "“{title}” is the page to read.",
    "I open “{title}” to find {what}.",
    "I visit “{title}” and look for {what}.",
)
_DEAD_SEARCH = (
    "None of these results is about {name}.",
    "The search did not bring the page of {name}.",
)
_NOTHING_NEW = (
    "These results bring no new page about {name}.",
    "I find nothing new about {name} here.",
)
_DEAD_PAGE = (
    "That page does not tell me {what}.",
    "The page is silent about {what}.",
)
_RETRY = ("I try another query.", "Another wording may bring more.", "I search again in other words.")
_OTHER = ("I try “{title}” instead.", "Perhaps “{title}” tells it.", "“{title}” may tell it, so I look there.")
_SAME_TITLE = (
    "Another page is also called “{title}”; I read that one.",
    "There is a second page “{title}”, which I try.",
)
_SATISFIED = ("That is what I was looking for.", "This step is settled.", "It tells what I needed.")
_REPLAN = ("So I change my plan.", "That way is closed.", "I have to go another way.")
_ERROR = ("The last call brought an error, so I make it properly.", "That turn failed; I try once more.")
_ANSWER = (
    "So the answer is {answer}.",
    "That answers the question: {answer}.",
    "This is what was asked: {answer}.",
)
_GUESS = (
    "I could not prove it, but {answer} is the most likely answer.",
    "Nothing I read settles it; my best answer is {answer}.",
)


_SHORT_NEED = ("I need {what} first.", "First I need {what}.")
_SHORT_NEXT = ("Now I need {what}.", "Next I need {what}.")
_SHORT_OPEN = ("I open “{title}”.", "I read “{title}”.", "“{title}” is the page.")
_SHORT_OTHER = ("I try “{title}” instead.", "Perhaps “{title}” tells it.")
_SHORT_DEAD_SEARCH = ("None of these is about {name}.", "I find nothing new about {name}.")
_SHORT_DEAD_PAGE = ("That page does not tell it.", "The page is silent about it.")
_SHORT_RETRY = ("I try another query.", "I try other words.")
_SHORT_ANSWER = ("The answer is {answer}.", "So the answer is {answer}.")
_SHORT_GUESS = ("My best guess is {answer}.", "I guess {answer}.")


def write_thought(plan: Plan, episode: Episode, rng: Random, *, is_long: bool) -> str:
    """The thought that goes before a move."""
    back = _look_back(plan, episode, rng, is_long=is_long)
    believed = [_BELIEVED.format(claim=claim.sentence) for claim in plan.claims]
    ahead = _look_ahead(plan, episode, rng) if is_long else _look_ahead_briefly(plan, episode, rng)
    return " ".join(part for part in (*back, *believed, *ahead) if part)


def rests_on_post(thought: str) -> bool:
    """Whether a thought takes the word of a forum post, said in the scribe's words."""
    return _BELIEVED.partition("{")[0] in thought


def _look_back(plan: Plan, episode: Episode, rng: Random, *, is_long: bool) -> list[str]:
    """What the last turn brought."""
    if not episode.turns:
        return []
    last = episode.turns[-1]
    if last.error and not last.results and not last.reports:
        return [rng.choice(_ERROR)]
    if last.reports:
        told = [report.summary for report in last.reports if report.evidence]
        if told and not _is_stuck(plan, last):
            check = [rng.choice(_SATISFIED), _recall(episode)] if is_long and plan.form else []
            return [" ".join(told), *check]
        if plan.step is not None:
            if not is_long:
                return [rng.choice(_SHORT_DEAD_PAGE)]
            return [rng.choice(_DEAD_PAGE).format(what=noun(plan.step)), rng.choice(_REPLAN)]
        return ["That page does not help."]
    if plan.move is Move.SEARCH and plan.is_retry and plan.step is not None:
        known = any(is_page_of(hit, _thing(plan.step)) for results in last.results for hit in results.hits)
        wordings = _NOTHING_NEW if known else _DEAD_SEARCH
        return [rng.choice(wordings if is_long else _SHORT_DEAD_SEARCH).format(name=_name(plan.step))]
    return []


def _is_stuck(plan: Plan, last: Turn) -> bool:
    """Whether the last page was asked for what is still missing."""
    return plan.step is not None and plan.is_retry and any(same_step(report.goal, plan.step) for report in last.reports)


def _recall(episode: Episode) -> str:
    """What earlier pages said, for a long thought."""
    told = [r.summary for turn in episode.turns[:-1] for r in turn.reports if r.evidence and len(r.summary) < 160]
    return "Known from before: " + " ".join(told[-2:]) if told else ""


def _look_ahead_briefly(plan: Plan, episode: Episode, rng: Random) -> list[str]:
    """What comes next, in one sentence."""
    if plan.move is Move.ANSWER:
        compared = _compare(plan, episode)
        return [compared, rng.choice(_SHORT_GUESS if plan.is_guess else _SHORT_ANSWER).format(answer=plan.answer)]
    if plan.step is None:
        return _without_step(plan)
    if plan.move is Move.VISIT:
        is_other = plan.is_retry and base_name(plan.title).text != _thing(plan.step).text
        return [rng.choice(_SHORT_OTHER if is_other else _SHORT_OPEN).format(title=plan.title)]
    if plan.is_retry:
        return [rng.choice(_SHORT_RETRY)]
    return [rng.choice(_SHORT_NEXT if episode.turns else _SHORT_NEED).format(what=noun(plan.step))]


def _look_ahead(plan: Plan, episode: Episode, rng: Random) -> list[str]:
    """What comes next, with how it fits into the whole."""
    if plan.move is Move.ANSWER:
        wording = rng.choice(_GUESS if plan.is_guess else _ANSWER).format(answer=plan.answer)
        return [*_prove(plan, episode), wording]
    if plan.step is None:
        return _without_step(plan)
    what, name = noun(plan.step), _name(plan.step)
    if plan.move is Move.VISIT:
        wordings: tuple[str, ...] = _OPEN
        if plan.is_retry:
            wordings = _SAME_TITLE if base_name(plan.title).text == _thing(plan.step).text else _OTHER
        return [rng.choice(wordings).format(title=plan.title, what=what), _check(plan, episode)]
    if not episode.turns:
        opening = [_task(plan.form)] if plan.form else []
        after = _after(plan.step, plan.form)
        then = [rng.choice(_THEN).format(then=after)] if after else []
        return [*opening, rng.choice(_NEED).format(what=what), *then, rng.choice(_SEARCH).format(name=name)]
    if plan.is_retry:
        return [rng.choice(_RETRY)]
    return [rng.choice(_NEXT).format(what=what), rng.choice(_SEARCH).format(name=name)]


def _without_step(plan: Plan) -> list[str]:
    if plan.move is Move.SEARCH:
        return ["I search for the question as it stands."]
    return [f"“{plan.title}” may tell it; I read that page."]


def _prove(plan: Plan, episode: Episode) -> list[str]:
    """How the answer follows where no page says it in so many words."""
    form = plan.form
    if plan.is_guess:
        return []
    if isinstance(form, Intersect):
        return [_compare(plan, episode)]
    if isinstance(form, Count):
        counted = "I counted those of the years asked for" if form.first or form.last else "I counted its entries"
        return [f"{counted}: {plan.answer}."]
    return ["Every step has been read on a page."] if plan.is_proven else []


def _compare(plan: Plan, episode: Episode) -> str:
    """The list that was read last, entry by entry, down to the one that the other list has too; empty if none is asked for."""
    if plan.is_guess or not isinstance(plan.form, Intersect):
        return ""
    names: Sequence[str] = ()
    for report in episode.turns[-1].reports:
        title = episode.titles.get(report.url) or title_of(report.url)
        reading = read_page(title, f"{report.summary}\n{report.evidence}")
        for listing in reading.lists:
            members = [member.name.text for member in listing.members]
            names = members if plan.answer in members else names
    return compare_lists(names, plan.answer)


def compare_lists(names: Sequence[str], common: str) -> str:
    """A walk down the `names` of one list to the one that another list has in common with it.

    A look at each entry in turn asks less of a small model than the answer at once: that a name has come before can be
    told at its last letter, but not before its first.
    """
    before = names[: names.index(common)] if common in names else ()
    return " ".join(["In both lists?", *(f"{name}: no." for name in before), f"{common}: yes."])


def _check(plan: Plan, episode: Episode) -> str:
    """How sure the choice of a page is, as far as the titles of the results tell."""
    if plan.is_retry:
        return "I must check that it fits."
    same = [url for url, title in episode.titles.items() if base_name(title).text == base_name(plan.title).text]
    if len(same) > 1:
        return "Several results bear this title; this one seems likeliest."
    return f"No other result is called {base_name(plan.title).text}."


def _after(step: Step, form: LogicalForm | None) -> str:
    """What is needed once the first step is known, as a noun phrase about "that city"; empty if nothing is."""
    if not isinstance(form, Intersect):
        parent = _parent(step, form)
        if not isinstance(step, Lookup) or parent is None:
            return ""
        kinds = RELATIONS[step.relation].range
        thing = Name(f"that {min(kinds)}" if len(kinds) == 1 else "that organisation")
        if isinstance(parent, ListOf):
            return write_list(replace(parent, of=thing), Random(0))
        return write_noun(replace(parent, of=thing), Random(0))
    return "the second list" if isinstance(step, Count) else "the two lists"


def _parent(step: Step, form: LogicalForm | None) -> Lookup | ListOf | None:
    """The part of the form that rests on the step."""
    node: Lookup | ListOf | Expr | None = form.items if isinstance(form, Count) else form  # type: ignore[assignment]
    while isinstance(node, Lookup | ListOf):
        if node.of == step:
            return node
        node = node.of
    return None


def _task(form: LogicalForm) -> str:
    """What the question asks, in the abstract."""
    if isinstance(form, Count):
        years = " and the years that count" if form.first or form.last else ""
        return f"The question asks for a number: I need a complete list{years}, and whose list it is."
    if isinstance(form, Intersect):
        return "The question asks for the one thing that stands in two lists, so I need both of them."
    return f"The question asks for one fact at the end of a chain of {depth(form)} steps."


def noun(step: Step) -> str:
    """What is looked for, as a noun phrase, with the years that count."""
    if isinstance(step, Lookup):
        return write_noun(step, Random(0))
    return write_list(step.items, Random(0)) + write_years(step)


def _thing(step: Step) -> Name:
    """What the step is about; steps that are looked for always start from a name."""
    of = step.of if isinstance(step, Lookup) else step.items.of
    assert isinstance(of, Name)
    return of


def _name(step: Step) -> str:
    return write_name(_thing(step))


def plain(text: str) -> str:
    """The thought without anything that a parser could take for a tag."""
    return re.sub(r"<(?=[/a-z|])", "", text)
