"""A web of architects, bridges, cities and prizes in fixed sentences, and a model that plays every synthesis role on it."""

import json
import random
import re
from collections.abc import Sequence
from itertools import pairwise

from fixtures import MemoryWeb, RuleModel, make_page

from webdancer.llm.protocol import Message
from webdancer.records import Page

HOST = "http://wiki.example/"
SYLLABLES = ("ba", "do", "fe", "gu", "ki", "la", "mo", "nu", "pe", "ri", "sa", "to", "vu", "ze")


class SmallWeb(MemoryWeb):
    """A MemoryWeb that can be walked as a snapshot."""

    def urls(self) -> list[str]:
        return sorted(self.pages)

    def page(self, url: str) -> Page | None:
        return self.pages.get(url)

    async def search(self, query, *, num_results=10, year=None):
        """Pages by how many of the query's words their title and text hold, the title counting more."""
        words = set(query.lower().split())
        scores = {
            url: 3 * len(words & set(p.title.lower().split())) + len(words & set(p.text.lower().split()))
            for url, p in self.pages.items()
        }
        best = sorted((url for url in scores if scores[url]), key=lambda url: (-scores[url], url))[:num_results]
        pages = [self.pages[url] for url in best]
        return [_hit(page) for page in pages]


def _hit(page):
    from webdancer.web.protocol import SearchHit

    return SearchHit(page.title, page.url, None, page.text[:60])


def url_of(title: str) -> str:
    return HOST + title.replace(" ", "_")


def page_of(title: str, text: str, linked: Sequence[str]) -> Page:
    page = make_page(url_of(title), title, f"# {title}\n{text}\n" + "It is told at length elsewhere. " * 5)
    return page.model_copy(update={"links": tuple(url_of(name) for name in linked)})


def build_web(num_people: int = 40, seed: int = 1) -> SmallWeb:
    rng = random.Random(seed)
    fresh = iter(_words(rng))
    people = [f"{next(fresh)} {next(fresh)}" for _ in range(num_people)]
    cities = [next(fresh) for _ in range(num_people // 4)]
    prizes = [f"{next(fresh)} Prize" for _ in range(num_people // 4)]
    home = {name: rng.choice(cities) for name in people}
    won = {name: rng.sample(prizes, 2) for name in people}
    works = {name: [f"{next(fresh)} Bridge" for _ in range(rng.randint(2, 9))] for name in people}
    after = dict(pairwise([work for name in people for work in works[name]]))
    pages = []
    for name in people:
        listed = "\n".join(f"- {work}" for work in works[name])
        text = f"{name} was born in {home[name]}.\n## Works\n{listed}"
        pages.append(page_of(name, text, [home[name], *works[name], "Main Page"]))
        for work in works[name]:
            text = f"The {work} was designed by {name}. The {work} was built just before the {after.get(work, work)}."
            pages.append(page_of(work, text, [name, "Main Page"]))
    for city in cities:
        born = [name for name in people if home[name] == city]
        pages.append(page_of(city, "## People born there\n" + "\n".join(f"- {name}" for name in born), born))
    for prize in prizes:
        winners = [name for name in people if prize in won[name]]
        pages.append(page_of(prize, "## Winners\n" + "\n".join(f"- {name}" for name in winners), winners))
    titles = [page.title for page in pages]
    pages.append(page_of("Main Page", "\n".join(f"- {title}" for title in titles), titles))
    return SmallWeb({page.url: page for page in pages})


def _words(rng: random.Random):
    seen = set()
    while True:
        word = "".join(rng.choice(SYLLABLES) for _ in range(3)).capitalize()
        if word not in seen:
            seen.add(word)
            yield word


def section(text: str, tag: str) -> str:
    return re.findall(rf"<{tag}>\n(.*?)\n?</{tag}>", text, re.DOTALL)[-1]


def small_model() -> RuleModel:
    return RuleModel(lambda messages: play(messages))


def play(messages: Sequence[Message]) -> str:
    text = messages[-1].content
    role = text.splitlines()[0].removeprefix("Role: ")
    reply = {
        "writer": write, "picker": pick, "describer": describe, "rewriter": rewrite, "answerer": answer
    }[role](text)  # fmt: skip
    return json.dumps(reply)


def write(text: str) -> dict:
    pages = {}
    for block in re.findall(r"<page>\n(.*?)\n</page>", text, re.DOTALL):
        url, title, body = re.match(r"url: (.*)\ntitle: (.*)\n\n(.*)", block, re.DOTALL).groups()
        pages[title] = (url, body)
    questions = []
    for title, (url, body) in pages.items():
        designer = re.search(r"designed by (\w+ \w+)\.", body)
        person = designer.group(1) if designer else None
        match section(text, "kind"):
            case "multi_hop" if person in pages:
                city = re.search(r"born in (.*)\.", pages[person][1]).group(1)
                questions.append((f"In which city was the architect of the {title} born?", city, [url, url_of(person)]))
            case "count" if person in pages:
                num = pages[person][1].count("\n- ")
                question = f"How many works did the architect of the {title} design?"
                questions.append((question, num, [url, url_of(person)]))
            case "simple" if designer:
                questions.append((f"Who designed the {title}?", person, [url]))
            case "simple" if "born in" in body:
                city = re.search(r"born in (.*)\.", body).group(1)
                questions.append((f"In which city was {title} born?", city, [url]))
    if section(text, "kind") == "intersection":
        lists = {t: set(re.findall(r"^- (.*)$", b, re.MULTILINE)) for t, (_, b) in pages.items() if "\n- " in b}
        for first in lists:
            for second in lists:
                if first < second and len(both := lists[first] & lists[second]) == 1:
                    question = f"Who is listed both by {first} and by {second}?"
                    questions.append((question, both.pop(), [pages[first][0], pages[second][0]]))
    return {"questions": [dict(zip(("question", "answer", "evidence_urls"), q, strict=True)) for q in questions[:2]]}


def pick(text: str) -> dict:
    question, introduced = section(text, "question"), section(text, "introduced").splitlines()
    names = re.findall(r"[A-Z]\w+(?: [A-Z]\w+)+", question)
    names = [name for name in introduced if name in question] or names
    return {"entity": names[0] if names else "", "query": f"what is {names[0]}" if names else ""}


def describe(text: str) -> dict:
    entity, question, pages = section(text, "entity"), section(text, "question"), section(text, "knowledge")
    for work, designer in re.findall(r"The (\w+ Bridge) was designed by (\w+ \w+)\.", pages):
        if entity == designer and work not in question:
            return description(f"the architect who designed the {work}", work, [url_of(work)])
    neighbours = re.findall(r"The (\w+ Bridge) was built just before the (\w+ Bridge)\.", pages)
    for work, later in neighbours:
        if entity == later != work:
            return description(f"the bridge that was built just after the {work}", work, [url_of(work)])
    for work, later in neighbours:
        if entity == work != later:
            return description(f"the bridge that was built just before the {later}", later, [url_of(work)])
    return {"description": "", "introduced": [], "evidence_urls": []}


def description(text: str, introduced: str, urls: list[str]) -> dict:
    return {"description": text, "introduced": [introduced], "evidence_urls": urls}


def rewrite(text: str) -> dict:
    entity, new = section(text, "entity"), section(text, "description")
    return {"question": re.sub(rf"(the )?{entity}", new, section(text, "question"))}


def answer(text: str) -> dict:
    """Right only where the first result's snippet says who designed the bridge that the question names."""
    found = re.search(r"The (\w+ Bridge) was designed by (\w+ \w+)\.", section(text, "results"))
    named = found and found.group(1) in section(text, "question")
    return {"answer": found.group(2) if named else "Nobody"}
