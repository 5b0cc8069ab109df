"""The report of a run as a browser shows it: its numbers, its trajectories, and hostile text that stays text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from pydantic import JsonValue

from webdancer.eval.report import write_report
from webdancer.eval.training_html import Comparison
from webdancer.records import QA, QAKind, Status, Step, Trajectory, Verdict, VerdictReason, VerdictStage

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed"),
]

HOSTILE = (
    "</pre></details><script>document.title = 'owned'; fetch('http://127.0.0.1:9/leak')</script>"
    "<img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\"> $name ${crawl}"
)


def entry(share: float, low: float, high: float) -> dict[str, JsonValue]:
    return {"pass@1": share, "ci95": [low, high], "num_questions": 40}


def system(share: float, low: float, high: float, actions: float) -> dict[str, JsonValue]:
    by_kind: JsonValue = {"count": entry(share, low, high), "multi_hop": entry(share / 2, low, high)}
    by_hops: JsonValue = {"2": entry(share, low, high), "3": entry(share / 4, low / 4, high / 4)}
    return {
        **entry(share, low, high), "judged_correct": 0.975, "mean_actions": actions, "mean_tokens": 512.5,
        "by_kind": by_kind, "by_hops": by_hops,
        "cost": {"seconds": 2.5, "prompt_tokens": 1000, "cached_tokens": 800, "sampled_tokens": 50,
                 "sampled_tokens_per_s": 20.0},
    }  # fmt: skip


SUMMARY: dict[str, JsonValue] = {
    "name": "<b>run</b>",
    "note": "A note & more.",
    "crawl": {"num_pages": 1414, "num_errors": {"not_found": 30}, "num_robots_violations": 0,
              "heldout": {"num_pages": 311, "num_errors": {"timeout": 2}, "num_robots_violations": 0}},
    "qa": {"by_kind": {"count": 12, "multi_hop": 8}, "by_rewrites": {"1": 3}, "num_sft": 9, "num_rl": 11},
    "funnel": {"sampled": 26, "kept": 22,
               "dropped": {"validity": {"unknown_tool": 1}, "correctness": {"wrong_answer": 2}, "rules": {"repetition": 1}}},
    "eval": {"sft": system(0.4, 0.263, 0.554, 3.0), "rl": system(0.8, 0.652, 0.895, 4.5),
             "guess": system(0.0, 0.0, 0.088, 0.0)},
    "seconds": {"crawl": 1.81, "synth": 2.0, "sample": 3.0, "sft": 4.0, "rl": 5.0, "eval": 6.0},
}  # fmt: skip
QUESTION = QA(id="q", question=f"Who? {HOSTILE}", answer="Velm", kind=QAKind.COUNT, evidence_urls=("a", "b"))
TRAJECTORY = Trajectory(
    id="q-a1",
    qa_id="q",
    question=QUESTION.question,
    model="m",
    seed=1,
    steps=(
        Step(thought=f"I think. {HOSTILE}", tool="search", arguments={"query": [HOSTILE]}, observation=HOSTILE),
        Step(thought="", raw=f"<think>{HOSTILE}", observation="Error: told"),
        Step(thought="So it is."),
    ),
    answer=HOSTILE,
    status=Status.ANSWERED,
)
FELL = Verdict(
    id="q-a1/correctness", trajectory_id="q-a1", stage=VerdictStage.CORRECTNESS, keep=False,
    reason=VerdictReason.WRONG_ANSWER,
)  # fmt: skip
METRICS: dict[str, list[dict[str, JsonValue]]] = {
    "sft": [
        {"step": 1, "loss": 4.0, "tokens": 1500},
        {"step": 2, "loss": 2.0, "validation_loss": 3.0, "tokens": 700},
        {"step": 3, "loss": 1.0},
    ],
    "rl": [
        {"step": 1, "solve_rate": 0.25, "entropy": None, "rollouts": 16, "sampled_tokens_per_episode": 20.0},
        {"step": 2, "solve_rate": 0.75, "entropy": None, "rollouts": 8, "sampled_tokens_per_episode": 100.5},
    ],
}
COMPARISON = Comparison(
    "wrong after SFT, right after DAPO",
    QUESTION,
    {"base": (TRAJECTORY, False), "sft": (TRAJECTORY, False), "rl": (TRAJECTORY, True)},
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield opened
        opened.close()


class Opened:
    """The report in a page that notes every request and everything on the console."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page, self.requests, self.problems = page, list[str](), list[str]()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(file.as_uri())

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of the first table below a heading, its head first."""
        table = self.page.locator(f"h2:has-text('{heading}') ~ table").first
        return [row.locator("th, td").all_inner_texts() for row in table.locator("tr").all()]


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    write_report(
        tmp_path / "report.html",
        SUMMARY,
        [(QUESTION, TRAJECTORY, [FELL])],
        metrics=METRICS,
        comparisons=[COMPARISON],
    )
    page = browser.new_page()
    yield Opened(page, tmp_path / "report.html")
    page.close()


def test_the_numbers_are_shown(opened: Opened) -> None:
    assert opened.page.locator("h1").inner_text() == "<b>run</b>"
    assert opened.page.locator("p.lead").inner_text() == "A note & more."
    assert opened.rows("Held-out questions") == [
        ["system", "count", "multi hop", "by the judge", "tool calls", "tokens an episode"],
        ["sft", "40.0%", "20.0%", "97.5%", "3.00", "512.50"],
        ["rl", "80.0%", "40.0%", "97.5%", "4.50", "512.50"],
        ["guess", "0.0%", "0.0%", "97.5%", "0.00", "512.50"],
    ]
    assert opened.page.locator("svg[aria-label='pass@1'] text").all_text_contents() == [
        "sft",
        "40.0% [26.3%, 55.4%], 40 questions",
        "rl",
        "80.0% [65.2%, 89.5%], 40 questions",
        "guess",
        "0.0% [0.0%, 8.8%], 40 questions",
    ]
    assert opened.rows("Crawl") == [
        ["what", "training web", "held-out web"],
        ["pages", "1,414", "311"],
        ["errors: not found", "30", ""],
        ["robots violations", "0", ""],
        ["errors: timeout", "", "2"],
    ]


def test_bars_of_the_checkpoints_are_drawn_to_scale(opened: Opened) -> None:
    picture = opened.page.locator("svg[aria-label='Held-out questions by hops']")
    assert picture.locator("title").all_text_contents() == [
        "SFT, 2 pages: 40.0% [26.3%, 55.4%], 40 questions",
        "DAPO, 2 pages: 80.0% [65.2%, 89.5%], 40 questions",
        "SFT, 3 pages: 10.0% [6.6%, 13.9%], 40 questions",
        "DAPO, 3 pages: 20.0% [16.3%, 22.4%], 40 questions",
    ]
    heights = [float(bar.get_attribute("height") or 0) for bar in picture.locator("g rect").all()]
    assert heights == pytest.approx([60, 120, 15, 30], abs=0.06)  # of 150
    # The interval of SFT at 2 pages: from 26.3 % to 55.4 % of 150 above the floor at 190.
    assert (picture.locator("g path").first.get_attribute("d") or "").partition(" ")[2] == "150.6V106.9"
    by_kind = opened.page.locator("svg[aria-label='Held-out questions by kind'] title").all_text_contents()
    assert [tip.partition(":")[0] for tip in by_kind] == [
        "SFT, all", "DAPO, all", "SFT, count", "DAPO, count", "SFT, multi hop", "DAPO, multi hop"
    ]  # fmt: skip


def test_learning_curves_are_drawn_where_there_are_numbers(opened: Opened) -> None:
    labels = [svg.get_attribute("aria-label") for svg in opened.page.locator(".charts svg").all()]
    assert labels == ["SFT: loss", "DAPO: share of rollouts that are right"]
    loss = opened.page.locator("svg[aria-label='SFT: loss']")
    # x from 64 to 388 over steps 1 to 3, y from 180 to 30 over losses 1 to 4
    assert [path.get_attribute("d") for path in loss.locator("path[fill=none]").all()] == [
        "M64.0 30.0L226.0 130.0L388.0 180.0", "M226.0 80.0"
    ]  # fmt: skip


def test_time_and_work_of_each_stage_are_told(opened: Opened) -> None:
    assert opened.rows("Time and cost") == [
        ["stage", "seconds", "what it did"],
        ["crawl", "1.81", "1,725 pages"],
        ["synth", "2.00", "20 questions to train on"],
        ["sample", "3.00", "26 attempts"],
        ["sft", "4.00", "2,200 tokens read"],
        ["rl", "5.00", "24 rollouts, 1,124 tokens sampled"],
        ["eval", "6.00", ""],
    ]


def test_cost_of_each_system_is_told(opened: Opened) -> None:
    table = opened.page.locator("h2:has-text('Time and cost') ~ table").nth(1)
    assert table.locator("tr").nth(1).locator("td").all_inner_texts() == [
        "sft", "2.50", "1,000", "800", "50", "20.00"
    ]  # fmt: skip


def test_the_funnel_is_drawn_to_scale(opened: Opened) -> None:
    picture = opened.page.locator("svg[aria-label='funnel']")
    assert picture.locator("text:not(.soft)").all_text_contents() == [
        "sampled", "26", "after validity", "25", "after correctness", "23", "after rules", "22"
    ]  # fmt: skip
    assert picture.locator("text.soft").all_text_contents()[1:] == [
        "dropped: unknown tool 1", "dropped: wrong answer 2", "dropped: repetition 1"
    ]  # fmt: skip
    widths = [float(bar.get_attribute("width") or 0) for bar in picture.locator("rect").all()]
    assert widths == pytest.approx([420, 420 * 25 / 26, 420 * 23 / 26, 420 * 22 / 26], abs=0.06)


def test_a_trajectory_opens_and_hostile_text_stays_text(opened: Opened) -> None:
    details = opened.page.locator("h2:has-text('Trajectories to read') ~ details")
    assert details.count() == 1
    assert not details.locator(".step").first.is_visible()
    details.locator("summary").click()
    assert details.locator(".step").count() == 3
    assert details.locator(".step").last.is_visible()
    assert details.locator("summary").inner_text() == f"count: {QUESTION.question} dropped: wrong answer"
    assert [pre.inner_text() for pre in details.locator("pre").all()] == [HOSTILE, f"<think>{HOSTILE}", "Error: told"]
    comparison = opened.page.locator("h2:has-text('before and after') ~ details").first
    comparison.locator("summary").click()
    assert [h.inner_text() for h in comparison.locator("h4").all()] == [
        f"base: {HOSTILE} wrong", f"SFT: {HOSTILE} wrong", f"DAPO: {HOSTILE} right"
    ]  # fmt: skip
    assert comparison.locator("pre").count() == 9
    assert opened.page.locator("script, img, link, iframe").count() == 0
    assert opened.page.title() == "webdancer: <b>run</b>"


def test_nothing_is_loaded_and_nothing_goes_wrong(opened: Opened) -> None:
    opened.page.locator("summary").first.click()
    opened.page.wait_for_timeout(200)
    assert len(opened.requests) == 1
    assert opened.requests[0].startswith("file://")
    assert opened.problems == []


def test_a_run_that_trains_nothing_had_empty_sections(browser: Browser, tmp_path: Path) -> None:
    """They are left out; who made the run stands at its head, and the calls are added up."""
    calls: JsonValue = [
        {"stage": "synth", "part": part, "kind": kind, "role": role, "who": who, "calls": calls, "failed": 0,
         "prompt_tokens": tokens, "cached_tokens": 0, "completion_tokens": 0, "money": money}
        for part, kind, role, who, calls, tokens, money in (
            ("count", "chat", "writer", "qwen3:8b", 3, 1000, 0.0015),
            ("multi_hop", "chat", "writer", "qwen3:8b", 2, 500, 0.0002),
            ("count", "search", "search", "snapshot", 4, 0, 0.0),
        )
    ]  # fmt: skip
    summary: dict[str, JsonValue] = {
        **SUMMARY,
        "note": "",
        "outside": calls,
        "eval": {},
        "crawl": {"num_pages": 7, "finished": True},
    }
    summary["qa"] = {
        "by_kind": {"count": 2}, "by_rewrites": {}, "heldout_by_kind": {"multi_hop": 1}, "num_sft": 2,
        "dropped": {"easy_one_search": 5, "surplus": 1}, "heldout_dropped": {"leaks_answer": 2, "surplus": 3},
    }  # fmt: skip
    write_report(
        tmp_path / "report.html", summary, [(QUESTION, TRAJECTORY, [FELL])], metrics={}, comparisons=[]
    )  # fmt: skip
    page = browser.new_page()
    opened = Opened(page, tmp_path / "report.html")
    assert page.locator("p.lead").inner_text() == "Written, answered and judged by qwen3:8b."
    assert [h.inner_text() for h in page.locator("h2").all()][:2] == ["Held-out questions", "The funnel"]
    assert opened.rows("Questions")[1:] == [["count", "2", "0"], ["multi hop", "0", "1"]]
    dropped = page.locator("table", has_text="written and not used").locator("tbody tr")
    assert [row.locator("td").all_inner_texts() for row in dropped.all()] == [
        ["easy one search", "5", "0"],
        ["surplus", "1", "3"],
        ["leaks answer", "0", "2"],
    ]
    assert opened.rows("Crawl") == [["what", "value"], ["pages", "7"], ["finished", "yes"]]
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("h3 ~ table tr").all()]
    assert rows == [
        ["stage", "role", "model or engine", "calls", "prompt tokens", "money"],
        ["synth", "writer", "qwen3:8b", "5", "1,500", "0.0017"],
        ["synth", "search", "snapshot", "4", "0", "0.0000"],
        ["all", "", "", "9", "1,500", "0.0017"],
    ]
    page.close()
