"""The roles of E2HQA: pick a name in a question, describe it through another page, put the description in its place."""

import random
from collections.abc import Sequence

from .prompt import PromptPage
from .questions import Beside, Named, innermost, parse_question
from .reading import Reading, says
from .writer import can_be_named


def pick(question: str, answer: str) -> dict[str, object]:
    """The innermost name of the question; none where the question is not understood or the answer says the name."""
    ask = parse_question(question)
    name = innermost(ask.target) if ask else None
    if name is None or says(answer, name.name):
        return {"entity": "", "query": ""}
    return {"entity": name.name, "query": f"{name.name} {name.noun}"}


def describe(
    question: str, answer: str, entity: str, pages: Sequence[PromptPage], rng: random.Random
) -> dict[str, object]:
    """What stands beside the entity's name on a page that is not its own; empty where no page names it so."""
    ask = parse_question(question)
    noun = innermost(ask.target).noun if ask else "module"
    found: list[dict[str, object]] = []
    for page in pages:
        reading = Reading.of(page.title, page.text)
        if reading.name == entity or not can_be_named(reading) or says(question, reading.name):
            continue
        of = Named(reading.name, reading.noun)
        for mention in reading.mentions(entity, noun):
            description = str(Beside(noun, mention.side, mention.words, of))
            if not says(description, answer):
                found.append({"description": description, "introduced": [reading.name], "evidence_urls": [page.url]})
    return rng.choice(found) if found else {"description": "", "introduced": [], "evidence_urls": []}


def rewrite(question: str, entity: str, description: str) -> dict[str, object]:
    """The question with the description in the place of the name and the words around it."""
    for name in (Named(entity, "module"), Named(entity, "chapter")):
        if str(name) in question:
            return {"question": question.replace(str(name), description)}
    return {"question": question.replace(entity, description)}
