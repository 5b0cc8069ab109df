"""What the tiny base model is trained on: the text of other embedded webs, and reading and copying exercises about them.

Stands in for the general pre-training that a real base model brings along. There is no agent trajectory in it: no tag and no
call. But its plans are said in the sentences that the teacher's thoughts are made of, and what is to be read has the shape of
what search and visit answer; the tokenizer alone is shown the frames of calls. The webs have seeds of a million
and more, and whatever bears a full name of a default web is left out. Exercises are dialogues: material and a task, then the
right answer, which is always copied or worked out from the material.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from random import Random

from webdancer.agent.cuts import cut_evidence
from webdancer.agent.tools import format_hits_brief, format_report_brief
from webdancer.pipeline.base_plans import MAX_EVIDENCE, claim_of, draw_years, plan, report_list
from webdancer.pipeline.base_web import MAX_LIST, Document, PageOf, Turn, Web
from webdancer.scribe.claims import HEDGES, NOUNS, THREAD
from webdancer.scribe.knowledge import count_members, shared_members
from webdancer.scribe.logical import Count, ListOf, Lookup
from webdancer.scribe.question import write_goal, write_list, write_name, write_noun, write_question
from webdancer.scribe.reader import Fact, read_page
from webdancer.scribe.relations import RELATIONS
from webdancer.scribe.statements import state
from webdancer.scribe.summariser import summarise
from webdancer.scribe.thoughts import compare_lists
from webdancer.web.protocol import SearchHit

_MAX_PAGE_CHARS = 900
_PAGES = 0.06
"""Share of documents that are pages."""
_LONG, _LONG_CHARS = 0.5, 2200
"""Share of dialogues that go on with other exercises, and for how long."""
_ADJACENT = 0.3
"""Share of pairs of lists that stand side by side."""
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


def documents(web: Web, rng: Random, num: int) -> Iterator[Document]:
    """Pages and exercises of one web, mixed by chance; half of the exercises go on with others, one after the other.

    In such a long dialogue many names lie between a name and its copy, as in an episode.
    """
    made = 0
    while made < num:
        document = _page(web, rng) if rng.random() < _PAGES else _exercise(web, rng)
        if document and document[0].role == "user" and rng.random() < _LONG:
            while sum(len(turn.text) for turn in document) < _LONG_CHARS:
                document = [*document, *_exercise(web, rng)]
        if document:
            made += 1
            yield document


def _exercise(web: Web, rng: Random) -> Document:
    """One exercise; empty where chance led to none."""
    makers: tuple[tuple[float, Callable[[Web, Random], Document]], ...] = (
        (0.10, _read),
        (0.06, _recall),
        (0.10, _find_result),
        (0.08, _find_post),
        (0.36, plan),
        (0.14, _in_both),
        (0.04, _count),
        (0.06, _quote),
        (0.03, _copy),
    )
    _, make = rng.choices(makers, [share for share, _ in makers])[0]
    return make(web, rng)


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
        texts.append(f"I open “{name}”. The answer is {fact.value.text}. In both lists? {name}: yes.")
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
    return format_report_brief(cut_evidence(found.evidence, max_chars=MAX_EVIDENCE), found.summary)


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
    return f"{rng.choice(HEDGES)} {claim_of(fact)}."


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


def _find_post(web: Web, rng: Random) -> Document:
    """What posts among search results say of a thing, and what they do not."""
    subject = rng.choice(web.facts).subject.text
    facts = [fact for fact in web.by_subject[subject] if fact.relation in NOUNS]
    others = [fact for fact in rng.sample(web.facts, min(4, len(web.facts))) if fact.relation in NOUNS]
    pages = [page for page in web.pages if page.title.startswith(subject)]
    if not facts or not pages:
        return []
    posted = [rng.choice(facts), *others[: rng.randint(0, 1)]]
    hits = [SearchHit(page.title, page.url, None, _snippet(page, rng)) for page in pages[:1]]
    for number, fact in enumerate(posted):
        title = f"{fact.subject.text}{THREAD}"
        url = f"http://talk.example/t/{rng.randrange(6000) + number}"
        hits.append(SearchHit(title, url, None, f"{rng.choice(HEDGES)} {claim_of(fact)}."))
    rng.shuffle(hits)
    tasks = []
    for fact in rng.sample(facts, min(3, len(facts))):
        told = f"A post says that {claim_of(fact)}." if fact in posted else f"I open “{pages[0].title}”."
        tasks.append((f"Who tells {write_noun(Lookup(fact.relation, fact.subject), rng)}?", told))
    return _dialogue(format_hits_brief(hits), tasks)


def _in_both(web: Web, rng: Random) -> Document:
    """What stands in two lists, mostly with other exercises between the two."""
    left = rng.choice(web.lists)
    others = [item for item in web.lists if item.kind == left.kind and item.holder != left.holder]
    if not others:
        return []
    right = rng.choice(others)
    shared = [name.text for name in shared_members(left, right)]
    if len(shared) != 1:
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
    halves = [half[:MAX_LIST] for half in halves]
    if any(common not in half for half in halves):
        return []
    heads = [write_list(ListOf(item.kind, item.holder), Random(0)) for item in (left, right)]
    first, second = (f"{head}:\n" + "\n".join(_list_lines(half, rng)) for head, half in zip(heads, halves, strict=True))
    found = compare_lists(halves[1], common)
    if rng.random() < _ADJACENT:
        return _dialogue(f"{first}\n{second}", [("Compare.", found)])
    turns = _dialogue(first, [("How many?", f"The list of {heads[0]} has {len(halves[0])} entries.")])
    for _ in range(rng.randint(1, 2)):
        turns += rng.choice((_recall, _find_result, _find_post))(web, rng)
    return turns + _dialogue(second, [("Compare.", found)])


def _list_lines(names: Sequence[str], rng: Random) -> list[str]:
    """Entries in one of the shapes that pages have."""
    years = sorted(rng.randint(1850, 2024) for _ in names)
    shapes = ("- {name}", "- {name} ({year})", "{year} | {name}")
    shape = rng.choice(shapes)
    return [shape.format(name=name, year=year) for name, year in zip(names, years, strict=True)]


def _count(web: Web, rng: Random) -> Document:
    """The number that a report on a list gives."""
    listing = rng.choice(web.lists)
    first, last = draw_years(listing, rng)
    found = report_list(listing, first, last)
    number = count_members(listing, first, last)
    if number is None:
        return []
    question = write_question(Count(ListOf(listing.kind, listing.holder), first, last), rng)
    return _dialogue(found.report, [(question, f"{found.summary} The answer is {number}.")])


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
