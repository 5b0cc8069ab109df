"""Chinese questions and pages in synthesis: giveaways, evidence, duplicates, mentions, a whole chain of rewrites."""

import json
import re

import pytest
from fixtures import MemoryWeb, RuleModel, ScriptedModel, make_page

from webdancer.config import SynthSettings
from webdancer.records import QA, QAKind
from webdancer.synth.checks import (
    base_title,
    check_description,
    check_question,
    check_rewrite,
    contains_name,
    fold,
    num_words,
    question_hash,
    telling_parts,
    text_size,
    tokens,
)
from webdancer.synth.crawl_qa import write_candidates
from webdancer.synth.easy_to_hard import Web, gather_knowledge, write_hard_candidates
from webdancer.synth.filters import Selector, is_easy
from webdancer.synth.groups import PageGroup, build_graph
from webdancer.synth.outcomes import Candidate, DropReason, GroupOutcome
from webdancer.web.protocol import SearchHit

BRIDGE_TEXT = """# 江城大桥
江城大桥横跨白鹭湖，是江城市的第一座悬索桥，由工程师林知远主持设计，二〇〇三年五月一日建成通车，全长一千二百米。
通车以后，从老城到北岸的路程由一个小时缩短到十分钟。大桥的夜景每年吸引许多游客，桥头立着一座纪念建桥工人的石碑。"""
LIN_TEXT = """# 林知远
林知远（1958年生），桥梁工程师，生于云溪县，毕业于江城工学院。
## 作品
- 江城大桥 | 2003年
- 青石桥 | 1991年
- 望海桥 | 1997年
- 落霞桥 | 2011年"""
COUNTY_TEXT = """# 云溪县
云溪县位于群山之间，以茶叶和竹纸闻名。县城的老街建于明代，街口有一座石牌坊。全县人口约二十一万，县政府驻清水镇。
县内最高的山是凤尾山，山上的茶园已有三百年的历史，每年四月都要举行采茶节。"""
LAKE_TEXT = """# 白鹭湖
白鹭湖是一座淡水湖，湖面最窄的地方只有八百米。横跨湖面的唯一一座桥是江城大桥。每年冬天，有上万只白鹭在湖边的芦苇里过冬。
湖中的小岛上有一座古塔，塔身七层，传说是一位渔夫为等候儿子归来而修建的。湖水从南岸的水闸流入大江。"""


def url_of(title):
    return f"http://w.example/{title}"


def page_of(title, text, links=()):
    page = make_page(url_of(title), f"{title}_江城百科", text)
    return page.model_copy(update={"links": tuple(map(url_of, links))})


BRIDGE = page_of("江城大桥", BRIDGE_TEXT, ["林知远", "白鹭湖"])
LIN = page_of("林知远", LIN_TEXT, ["江城大桥", "云溪县"])
COUNTY = page_of("云溪县", COUNTY_TEXT)
LAKE = page_of("白鹭湖", LAKE_TEXT, ["江城大桥"])
PAGES = {page.url: page for page in (BRIDGE, LIN, COUNTY, LAKE)}


class Snapshot:
    def urls(self):
        return list(PAGES)

    def page(self, url):
        return PAGES.get(url)


class SubstringWeb(MemoryWeb):
    """A search engine that finds pages by any two characters of the query."""

    async def search(self, query, *, num_results=10, year=None):
        pairs = {query[i : i + 2] for i in range(len(query) - 1)}
        scored = [(sum(pair in page.title + page.text for pair in pairs), page) for page in self.pages.values()]
        found = sorted((item for item in scored if item[0]), key=lambda item: -item[0])
        return [SearchHit(page.title, page.url, None, page.text[:80]) for _, page in found[:num_results]]


def test_tokens_are_characters_and_whole_numbers():
    assert tokens("《江城大桥》，２００３年！") == ["江", "城", "大", "桥", "2003", "年"]
    assert tokens("佐々木〇号𠮷野") == ["佐", "々", "木", "〇", "号", "𠮷", "野"]


def test_sixteen_characters_are_ten_words_and_forty_are_a_hundred_and_twenty_letters():
    assert num_words("江城大桥由谁主持设计并在哪年建成") == 10.0
    assert num_words("who designed 江城大桥") == 2 + 4 * 5 / 8
    assert text_size("湖" * 40) == 120
    assert text_size("lake 湖") == 8


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("江城大桥由谁设计？", "江城大桥", True),
        ("《江城大桥》的作者是谁？", "江城 大桥", True),
        ("江城的大桥由谁设计？", "江城大桥", False),
        ("约翰•史密斯生于何处？", "约翰·史密斯", True),
        ("他活到了１０５岁", "105", True),
        ("他活到了1050岁", "105", False),
    ],
)
def test_a_name_stands_in_a_text(text, name, expected):
    assert contains_name(text, name) is expected


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("江城大桥_江城百科", "江城大桥"),
        ("林知远（工程师）", "林知远"),
        ("林知远（工程师） - 某某百科", "林知远"),
        ("江城大桥-江城新闻网", "江城大桥"),
        ("江城大桥｜旅游指南", "江城大桥"),
        ("约翰-史密斯", "约翰-史密斯"),
        ("江城百科", "江城百科"),
    ],
)
def test_titles_lose_their_sites_name(title, expected):
    assert base_title(title) == expected


@pytest.mark.parametrize(
    ("question", "answer", "kind", "expected"),
    [
        ("江城大桥的设计者出生在哪个县？", "云溪县", QAKind.MULTI_HOP, None),
        ("江城大桥的设计者一共设计了几座桥？", "4", QAKind.COUNT, None),
        ("江城大桥的设计者一共设计了几座桥？", "四座", QAKind.COUNT, DropReason.NOT_A_NUMBER),
        ("江城大桥的设计者", "林知远", None, DropReason.NOT_A_QUESTION),
        ("他是谁？", "林知远", None, DropReason.NOT_A_QUESTION),
        ("江城大桥位于哪座城市？", "江城市", None, DropReason.LEAKS_ANSWER),  # the answer without its suffix
        ("云溪县的林知远设计了哪座桥？", "林知远", None, DropReason.LEAKS_ANSWER),
        ("《落霞桥》的作者写过哪部小说？", "落霞桥", None, DropReason.LEAKS_ANSWER),
        ("4座桥中最长的是第几座？", "4", QAKind.COUNT, DropReason.LEAKS_ANSWER),
        ("根据本文，江城大桥由谁设计？", "林知远", None, DropReason.REFERS_TO_PAGE),
        ("上述页面提到的大桥由谁设计？", "林知远", None, DropReason.REFERS_TO_PAGE),
        ("文中提到的大桥由谁设计？", "林知远", None, DropReason.REFERS_TO_PAGE),
        ("请问本文的主人公是谁？", "林知远", None, DropReason.REFERS_TO_PAGE),
        ("该网页介绍的大桥由谁设计？", "林知远", None, DropReason.REFERS_TO_PAGE),
    ],
)
def test_check_question(question, answer, kind, expected):
    problem = check_question(question, answer, kind)
    assert (problem and problem[0]) == expected


@pytest.mark.parametrize(
    "question",
    [
        "第三届日本文学奖的得主出生在哪座城市？",
        "日本文化部的第一任部长是谁？",
        "在世界上文学成就最高的云溪人是谁？",
        "哪位作家的论文中首次提到了江城大桥？",
    ],
)
def test_words_that_hold_this_text_by_chance_do_not_refer_to_it(question):
    """日本文学 (Japanese literature) was taken for 本文 (this text), and the question was dropped."""
    assert check_question(question, "林知远", None) is None


def test_telling_parts_of_a_name():
    assert telling_parts("江城大桥", "") == ["江城大桥", "江城"]
    assert telling_parts("江城交通大学", "") == ["江城交通大学", "江城交通", "江城"]
    assert telling_parts("约翰·史密斯", "") == ["约翰", "史密斯", "史密"]
    assert telling_parts("林远", "") == ["林远"]
    assert telling_parts("第二次会战", "") == ["第二次会战"]


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        ("横跨白鹭湖的唯一一座桥", None),
        ("江城大桥所在的那座桥", "names the entity"),
        ("江城的第一座悬索桥", "holds '江城' of the name"),
        ("云溪县人设计的悬索桥", "holds the answer '云溪县'"),
        ("云溪人设计的一座悬索桥", "holds the answer '云溪'"),
        ("那座桥", "says too little"),
        ("设计者出生的地方", "stands in the question already"),
    ],
)
def test_check_description(description, problem):
    found = check_description(
        description,
        entity="江城大桥",
        answer="云溪县",
        question="江城大桥的设计者出生的地方在哪个县？",
        knowledge=f"{BRIDGE_TEXT}\n{LAKE_TEXT}",
    )
    assert (found is None) if problem is None else (found is not None and problem in found)


@pytest.mark.parametrize(
    ("rewritten", "problem"),
    [
        ("横跨白鹭湖的唯一一座桥的设计者出生在哪个县？", None),
        ("横跨 白鹭湖 的唯一一座桥，其设计者出生在哪个县?", None),
        ("横跨白鹭湖的江城大桥的设计者出生在哪个县？", "still names"),
        ("白鹭湖上那座桥的设计者出生在哪个县？", "does not hold the description"),
        ("横跨白鹭湖的唯一一座桥的设计者是云溪人吗？", "leaks_answer"),
    ],
)
def test_check_rewrite(rewritten, problem):
    found = check_rewrite(rewritten, entity="江城大桥", description="横跨白鹭湖的唯一一座桥", answer="云溪县")
    assert (found is None) if problem is None else (found is not None and problem in found)


def test_mentions_make_the_link_graph():
    graph = build_graph(Snapshot())
    assert graph.urls == sorted(PAGES)  # each has 70 characters and more, which say as much as 210 letters
    assert graph.told[BRIDGE.url] == sorted([LIN.url, LAKE.url])
    assert graph.told[LAKE.url] == [BRIDGE.url]
    assert graph.told[LIN.url] == [COUNTY.url]
    assert graph.listed[LIN.url] == [BRIDGE.url]


def select(*questions):
    selector = Selector({QAKind.MULTI_HOP: 9}, SynthSettings(max_answer_share=1.0))
    for number, (question, answer, evidence) in enumerate(questions):
        qa = QA(id=str(number), question=question, answer=answer, kind=QAKind.MULTI_HOP, evidence_urls=tuple(evidence))
        selector.add(
            [GroupOutcome(id=f"g{number}", kind=qa.kind, urls=tuple(evidence), candidates=(Candidate(qa=qa),))]
        )
    dropped = {qa.id: qa.reason for qa in selector.dropped}
    return [dropped.get(str(number)) for number in range(len(questions))]


def test_duplicates():
    first = ("江城大桥的设计者出生在哪个县？", "云溪县", "ab")
    assert select(first, ("江城 大桥的设计者，出生在哪个县?", "某县", "cd")) == [None, DropReason.DUPLICATE]
    assert question_hash("江城 大桥的设计者，出生在哪个县?") == question_hash(first[0])
    # fourteen characters; the second has twelve of them and two others: 12 / 16 = 0.75
    assert select(first, ("江城大桥的设计者出身于哪个县？", "云溪县", "bc")) == [None, None]
    # one of fourteen replaced: 13 / 15 = 0.87
    assert select(first, ("江城大桥的设计者出自在哪个县？", "云溪县", "bc")) == [None, DropReason.NEAR_DUPLICATE]


async def test_the_writer_is_shown_chinese_pages_and_its_counts_are_read_in_any_width():
    group = PageGroup("count-00001", QAKind.COUNT, (BRIDGE.url, LIN.url))
    written = {"question": "江城大桥的设计者一共设计了几座桥？", "answer": "４", "evidence_urls": [BRIDGE.url, LIN.url]}
    model = ScriptedModel([json.dumps({"questions": [written]}, ensure_ascii=False)])
    [candidate] = await write_candidates(model, group, [BRIDGE, LIN], settings=SynthSettings(), seed=1)
    assert candidate.reason is None
    assert candidate.qa.answer == "4"
    assert LIN_TEXT in model.calls[0][0][0].content


async def test_an_easy_question_is_found_though_the_answer_is_spelt_otherwise():
    qa = QA(
        id="q", question="江城大桥哪天通车？", answer="2003年5月1日", kind=QAKind.MULTI_HOP, evidence_urls=("a", "b")
    )
    model = ScriptedModel(['{"answer": "二〇〇三年五月一日"}'])
    assert await is_easy(model, SubstringWeb(PAGES), qa, SynthSettings()) == (
        DropReason.EASY_CLOSED_BOOK,
        "二〇〇三年五月一日",
    )


async def test_knowledge_is_found_though_the_dot_in_a_name_differs():
    page = page_of("望海桥", "望海桥由约翰•史密斯出资修建。")
    web = SubstringWeb({page.url: page})
    assert await gather_knowledge(Web(web, web), "约翰·史密斯", "约翰·史密斯") == [page]


DESCRIPTIONS = {
    "林知远": ("主持设计江城大桥的工程师", ["江城大桥"], [BRIDGE.url]),
    "江城大桥": ("横跨白鹭湖的唯一一座桥", ["白鹭湖"], [LAKE.url]),
}


def rewriting(messages):
    text = messages[0].content
    question = re.findall(r"<question>\n(.*)\n</question>", text)[-1:]
    entity = re.search(r"<entity>\n(.*)\n</entity>", text)
    match text.splitlines()[0].removeprefix("Role: "):
        case "writer":
            written = {"question": "林知远出生在哪个县？", "answer": "云溪县", "evidence_urls": [LIN.url]}
            return json.dumps({"questions": [written]})
        case "picker":
            name = next((name for name in DESCRIPTIONS if name in question[0]), "")
            return json.dumps({"entity": name, "query": name})
        case "describer":
            keys = ("description", "introduced", "evidence_urls")
            return json.dumps(dict(zip(keys, DESCRIPTIONS[entity[1]], strict=True)))
        case _:
            return json.dumps({"question": question[0].replace(entity[1], DESCRIPTIONS[entity[1]][0])})


async def test_a_chinese_question_is_rewritten_twice():
    model, web = RuleModel(rewriting), SubstringWeb(PAGES)
    group = PageGroup("easy_to_hard-00000", QAKind.EASY_TO_HARD, (LIN.url,))
    settings = SynthSettings(min_rewrites=2, max_rewrites=2, max_reasks=0)
    [candidate] = await write_hard_candidates(model, model, Web(web, web), group, LIN, settings=settings, seed=5)
    assert candidate.reason is None, candidate.detail
    assert [qa.question for qa in (*candidate.lineage, candidate.qa)] == [
        "林知远出生在哪个县？",
        "主持设计江城大桥的工程师出生在哪个县？",
        "主持设计横跨白鹭湖的唯一一座桥的工程师出生在哪个县？",
    ]
    assert candidate.qa.answer == "云溪县"
    assert candidate.qa.evidence_urls == (LAKE.url, BRIDGE.url, LIN.url)


def test_folding_twice_changes_nothing():
    assert fold(fold("《江城大桥》２００３年")) == fold("《江城大桥》２００３年") == "江 城 大 桥 2003 年"
