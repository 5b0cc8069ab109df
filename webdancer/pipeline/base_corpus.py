"""What the tiny base model is trained on: the text of other embedded webs, and reading and copying exercises about them.

Stands in for the general pre-training that a real base model brings along. There is no agent trajectory in it: no thought, no
call, no tool response. The webs have seeds of a million and more, and whatever bears a full name of a default web is left out.
Exercises are dialogues: material and a task, then the right answer, which is always copied or worked out from the material.
"""

import json
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from webdancer.agent.cuts import cut_evidence
from webdancer.agent.tools import format_hits_brief, format_report_brief
from webdancer.scribe.claims import HEDGES, NOUNS
from webdancer.scribe.knowledge import shared_members
from webdancer.scribe.logical import Count, Intersect, ListOf, Lookup, Name
from webdancer.scribe.question import write_goal, write_list, write_name, write_noun, write_question
from webdancer.scribe.reader import Fact, Listing, read_page
from webdancer.scribe.relations import LISTS, RELATIONS
from webdancer.scribe.statements import state
from webdancer.scribe.summariser import summarise
from webdancer.web.extract import extract
from webdancer.web.protocol import SearchHit
from webdancer.world.facts import World

FIRST_SEED = 1_000_000
_MAX_PAGE_CHARS = 900
_MAX_EVIDENCE = 300
_MAX_LIST = 24
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


class Turn(NamedTuple):
    """One message of a document. Pages are documents of one `text` turn."""

    role: str
    """`user`, `assistant`, or `text` for plain text without any role."""
    text: str


Document = list[Turn]


@dataclass
class PageOf:
    """One page of another web."""

    title: str
    url: str
    text: str


@dataclass
class Web:
    """The pages of one web and what the reader found on them."""

    pages: list[PageOf] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    by_subject: dict[str, list[Fact]] = field(default_factory=dict)
    lists: list[Listing] = field(default_factory=list)

    def without(self, names: Set[str]) -> "Web":
        """The web without all that bears one of these names: pages, facts and lists."""
        own = {name.text for fact in self.facts for name in (fact.subject, fact.value)}
        own |= {page.title.partition(" (")[0].partition(":")[0] for page in self.pages}
        own |= {member.name.text for listing in self.lists for member in listing.members}
        shared = own & names
        clean = Web()
        clean.pages = [page for page in self.pages if not any(name in f"{page.title}\n{page.text}" for name in shared)]
        for fact in self.facts:
            if not any(name in f"{fact.subject.text}\n{fact.value.text}\n{fact.line}" for name in shared):
                clean.add_fact(fact)
        clean.lists = [x for x in self.lists if not shared & {x.holder.text, *(m.name.text for m in x.members)}]
        return clean

    def add_fact(self, fact: Fact) -> None:
        """Note a fact, also under its subject."""
        self.facts.append(fact)
        self.by_subject.setdefault(fact.subject.text, []).append(fact)


def read_web(seed: int, num_pages: int) -> Web:
    """Generate a web and read its pages, without a server.

    Raises:
        ValueError: the seed could be one of a run's own webs.
    """
    if seed < FIRST_SEED:
        raise ValueError(f"seed of a web to pre-train on: got {seed}, expected {FIRST_SEED} or more")
    world, web = World(seed, num_pages), Web()
    docs = (doc for number in range(world.graph.plan.num_regions) for doc in world.docs(world.graph.region(number)))
    for doc in docs:
        url = world.site.url(doc.place)
        response = world.respond(world.site.hosts[doc.place.host], doc.place.path, {})
        if response.status != 200 or not response.headers.get("Content-Type", "").startswith("text/html"):
            continue
        page = extract(response.body, url=url, content_type=response.headers.get("Content-Type"))
        if page.title and page.text:
            web.pages.append(PageOf(page.title, url, page.text))
            reading = read_page(page.title, page.text)
            web.lists += [item for item in reading.lists if item.complete and 1 < len(item.members) <= _MAX_LIST]
            for fact in reading.facts:
                if fact.value.text != fact.subject.text and fact.relation in RELATIONS:
                    web.add_fact(fact)
    return web


def documents(web: Web, rng: Random, num: int) -> Iterator[Document]:
    """Exercises and pages of one web, mixed by chance."""
    makers: tuple[tuple[float, Callable[[Web, Random], Document]], ...] = (
        (0.10, _page),
        (0.13, _read),
        (0.13, _recall),
        (0.13, _find_result),
        (0.25, _chain),
        (0.13, _in_both),
        (0.04, _count),
        (0.06, _quote),
        (0.03, _copy),
    )
    shares = [share for share, _ in makers]
    made = 0
    while made < num:
        _, make = rng.choices(makers, shares)[0]
        document = make(web, rng)
        if document:
            made += 1
            yield document


def tokenizer_texts(web: Web, rng: Random) -> list[str]:
    """What the tokenizer is trained on: documents, and the frames of calls, thoughts and goals around names of the web."""
    texts = ["\n".join(turn.text for turn in document) for document in documents(web, rng, 300)]
    for fact in rng.sample(web.facts, min(80, len(web.facts))):
        name, url = fact.subject.text, rng.choice(web.pages).url
        noun = write_noun(Lookup(fact.relation, fact.subject), Random(0))
        goal = write_goal(Lookup(fact.relation, fact.subject), rng)
        query = f"{name} {NOUNS.get(fact.relation, '')}".strip()
        texts.append(f'{{"name": "search", "arguments": {{"query": ["{query}"]}}}}')
        texts.append(f'{{"name": "visit", "arguments": {{"url": "{url}", "goal": "{goal}"}}}}')
        texts.append(f"I need {noun} first. Now I need {noun}. A post says that {_told(fact, rng)}")
        texts.append(f"I open “{name}”. The answer is {fact.value.text}. Only {name} stands in both lists.")
    return texts


def _page(web: Web, rng: Random) -> Document:
    """A page as it stands."""
    page = rng.choice(web.pages)
    return [Turn("text", f"{page.title}\n{page.url}\n{page.text[:_MAX_PAGE_CHARS]}")]


def _question(fact: Fact, rng: Random) -> str:
    return write_question(Lookup(fact.relation, fact.subject), rng)


def _answer(fact: Fact) -> str:
    return fact.value.text


def _dialogue(material: str, tasks: Sequence[tuple[str, str]]) -> Document:
    """Material with the first task under it, then task and answer in turn."""
    turns: Document = []
    for number, (task, answer) in enumerate(tasks):
        turns.append(Turn("user", f"{material}\n{task}" if number == 0 and material else task))
        turns.append(Turn("assistant", answer))
    return turns


def _statement(fact: Fact) -> str:
    return state(fact.relation, fact.subject, fact.value, fact.year)


def _report(text: str, goal: str, title: str) -> str:
    """What a page tells for a goal, in the words of the page's evidence and a summary."""
    found = summarise(goal, title, text)
    return format_report_brief(cut_evidence(found.evidence, max_chars=_MAX_EVIDENCE), found.summary)


def _read(web: Web, rng: Random) -> Document:
    """Questions about one page."""
    page = rng.choice(web.pages)
    reading = read_page(page.title, page.text)
    facts = [f for f in reading.facts if f.line in page.text[:_MAX_PAGE_CHARS] and f.relation in RELATIONS]
    rng.shuffle(facts)
    if not facts:
        return []
    tasks = []
    for fact in facts[:3]:
        if rng.random() < 0.5:
            tasks.append((_question(fact, rng), _answer(fact)))
        else:
            goal = write_goal(Lookup(fact.relation, fact.subject), rng)
            tasks.append((f"Report: {goal}", _report(page.text, goal, page.title)))
    return _dialogue(f"{page.title}\n{page.text[:_MAX_PAGE_CHARS]}", tasks)


def _recall(web: Web, rng: Random) -> Document:
    """Questions about some of many statements."""
    facts = rng.sample(web.facts, min(rng.randint(2, 10), len(web.facts)))
    facts = list({(fact.relation, fact.subject.text): fact for fact in facts}.values())
    material = "\n".join(_told(fact, rng) for fact in facts)
    asked = rng.sample(facts, min(len(facts), rng.randint(2, 5)))
    return _dialogue(material, [(_question(fact, rng), _answer(fact)) for fact in asked])


def _told(fact: Fact, rng: Random) -> str:
    """The fact as a statement, or now and then as a post has it."""
    if fact.relation not in NOUNS or rng.random() < 0.7:
        return _statement(fact)
    return f"{rng.choice(HEDGES)} the {NOUNS[fact.relation]} of {fact.subject.text} is {fact.value.text}."


def _snippet(page: PageOf, rng: Random) -> str:
    lines = [line for line in page.text.splitlines() if len(line) > 10]
    line = rng.choice(lines) if lines else page.title
    start = line.find(" ", rng.randrange(len(line))) + 1 if rng.random() < 0.5 else 0
    return line[start : start + rng.randint(40, 110)].rsplit(" ", 1)[0].strip() or page.title


def _find_result(web: Web, rng: Random) -> Document:
    """The address of a result by its title, and what its snippet says."""
    pages = rng.sample(web.pages, min(rng.randint(2, 5), len(web.pages)))
    if rng.random() < 0.5:  # results are alike: pages of one first word
        first = pages[0].title.split()[0]
        alike = [page for page in web.pages if page.title.startswith(first)]
        pages = rng.sample(alike, min(len(alike), len(pages)))
    snippets = [_snippet(page, rng) for page in pages]
    hits = [SearchHit(page.title, page.url, None, text) for page, text in zip(pages, snippets, strict=True)]
    tasks = []
    for page, snippet in rng.sample(list(zip(pages, snippets, strict=True)), min(len(pages), 3)):
        draw = rng.random()
        if draw < 0.7:
            tasks.append((f"Address of {page.title}", page.url))
        elif draw < 0.85:
            tasks.append((f"Snippet of {page.title}", snippet))
        else:
            tasks.append((f"Title of {page.url}", page.title))
    return _dialogue(format_hits_brief(hits), tasks)


def _steps(web: Web, rng: Random) -> list[Fact]:
    """Facts that follow from each other, from a name on."""
    fact = rng.choice(web.facts)
    steps = [fact]
    while len(steps) < 4 and RELATIONS[fact.relation].is_entity and rng.random() < 0.85:
        seen = {step.subject.text for step in steps}
        onward = [f for f in web.by_subject.get(fact.value.text, ()) if f.value.text not in seen]
        if not onward:
            break
        fact = rng.choice(onward)
        steps.append(fact)
    return steps


def _chain(web: Web, rng: Random) -> Document:
    """A question of several steps, parted: what is needed first, and what next once it is known."""
    steps = _steps(web, rng)
    if any(RELATIONS[step.relation].volatile for step in steps):
        return []
    form: Lookup | Name = steps[0].subject
    for step in steps:
        form = Lookup(step.relation, form)
    assert isinstance(form, Lookup)
    lists = [item for item in web.lists if item.holder.text == steps[-1].value.text]
    ends_in_list = bool(lists) and rng.random() < 0.5
    question = write_question(form, rng)
    if ends_in_list:
        listing = rng.choice(lists)
        items = ListOf(listing.kind, form)
        question = write_question(_ask_list(items, listing, web, rng), rng)
    tasks = [(f"Question: {question}\nFirst?", write_noun(Lookup(steps[0].relation, steps[0].subject), Random(0)))]
    if steps[0].relation in NOUNS and rng.random() < 0.5:
        tasks.append(("Query?", f"{steps[0].subject.text} {NOUNS[steps[0].relation]}"))
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        told = _told(step, rng)
        if after is not None:
            needed = write_noun(Lookup(after.relation, Name(step.value.text)), Random(0))
            tasks.append((f"{told}\nNext?", needed))
        elif ends_in_list:
            tasks.append((f"{told}\nNext?", write_list(ListOf(listing.kind, Name(step.value.text)), Random(0))))
        else:
            tasks.append((f"{told}\nAnswer?", step.value.text))
    return _dialogue("", tasks)


def _ask_list(items: ListOf, listing: Listing, web: Web, rng: Random) -> Count | Intersect:
    """A question about a list: how many, or what else is on another list."""
    members = LISTS[listing.kind].members
    others = [item for item in web.lists if LISTS[item.kind].members & members and item != listing]
    if others and rng.random() < 0.5:
        other = rng.choice(others)
        return Intersect(min(members & LISTS[other.kind].members), items, ListOf(other.kind, other.holder))
    return Count(items)


def _in_both(web: Web, rng: Random) -> Document:
    """What stands in two lists."""
    left = rng.choice(web.lists)
    right = rng.choice([item for item in web.lists if item.kind == left.kind])
    shared = [name.text for name in shared_members(left, right)]
    if left == right or len(shared) != 1:
        names = [member.name.text for member in (*left.members, *right.members)]
        names = list(dict.fromkeys(names))
        if len(names) < 3:
            return []
        common = rng.choice(names)
        rng.shuffle(names)
        names.remove(common)
        cut = rng.randint(1, len(names) - 1)
        halves = [[*names[:cut], common], [*names[cut:], common]]
        for half in halves:
            rng.shuffle(half)
    else:
        halves = [[member.name.text for member in item.members] for item in (left, right)]
        common = shared[0]
    first, second = ("\n".join(f"- {name}" for name in half[:_MAX_LIST]) for half in halves)
    if f"- {common}" not in first or f"- {common}" not in second:
        return []
    heads = (write_list(ListOf(item.kind, item.holder), Random(0)) for item in (left, right))
    return _dialogue(f"{next(heads)}:\n{first}\n{next(heads)}:\n{second}", [("In both?", common)])


def _count(web: Web, rng: Random) -> Document:
    """The number that a report on a list gives."""
    listing = rng.choice(web.lists)
    years = sorted(member.year for member in listing.members if member.year)
    first = rng.choice(years) if years and rng.random() < 0.4 else None
    last = rng.choice(years) if years and rng.random() < 0.4 else None
    if first and last and first > last:
        first, last = last, first
    form = Count(ListOf(listing.kind, listing.holder), first, last)
    text = "\n".join((listing.heading, *listing.lines))
    report = _report(f"{listing.holder.text}\n{text}", write_goal(form, rng), listing.holder.text)
    number = report.rpartition(", ")[2].split()[0] if ", " in report.rpartition("Summary: ")[2] else ""
    number = number or report.rpartition(" has ")[2].split()[0]
    return _dialogue(report, [(write_question(form, rng), number)]) if number.isdigit() else []


def _quote(web: Web, rng: Random) -> Document:
    """Names and addresses as JSON spells them."""
    page, fact = rng.choice(web.pages), rng.choice(web.facts)
    goal = write_goal(Lookup(fact.relation, fact.subject), Random(0))
    texts = [page.url, goal, f"{fact.subject.text} {page.title}", write_name(fact.subject)]
    tasks = [(f"Quote: {text}", json.dumps([text], ensure_ascii=False)) for text in rng.sample(texts, 2)]
    return _dialogue("", tasks)


def _copy(web: Web, rng: Random) -> Document:
    """Made-up names, to be found again by their number."""

    def name() -> str:
        return " ".join("".join(rng.choices(_SYLLABLES, k=rng.randint(2, 4))).capitalize() for _ in range(2))

    names = [name() for _ in range(rng.randint(3, 12))]
    keys = [name().split()[0] for _ in names]
    material = "\n".join(f"{key}: {value}" for key, value in zip(keys, names, strict=True))
    asked = rng.sample(range(len(names)), min(len(names), 4))
    return _dialogue(material, [(f"{keys[i]}?", names[i]) for i in asked])
