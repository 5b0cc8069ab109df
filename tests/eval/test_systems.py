"""Questions put to systems: every one ends as a result, also after failures and interruptions."""

from pathlib import Path

import pytest
from fixtures import MemoryWeb, RuleModel, ScriptedModel, answer_turn, make_page, summary

from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings
from webdancer.errors import ModelError
from webdancer.eval.systems import Answerer, agent_answerer, closed_book_answerer, evaluate, guess_answerer
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.records import QA, CotMode, EvalResult, QAKind, Status, Trajectory
from webdancer.store import RecordWriter, read_records

QAS = [
    QA(
        id=f"q{n}",
        question=f"Where was Ada Lunt born, {n}?",
        answer="Velm",
        kind=QAKind.MULTI_HOP,
        evidence_urls=("a",),
    )
    for n in range(6)
]
RIGHT = '{"reason": "same", "correct": true}'


def judging(reply: str = RIGHT) -> ChatModel:
    return RuleModel(lambda messages: reply)


def agent(model: ChatModel) -> Answerer:
    page = make_page("http://w.example/Ada_Lunt", "Ada Lunt", "Ada Lunt was born in Velm.")
    web, settings = MemoryWeb({page.url: page}), AgentSettings()
    toolbox = Toolbox(web, web, RuleModel(lambda messages: summary("e", "s")), settings)
    return agent_answerer(model, toolbox, settings=settings, mode=CotMode.SHORT, sampling=Sampling(), seed=1)


async def put(
    out: Path, answerer: Answerer, *, judge: ChatModel | None = None, qas: list[QA] = QAS, concurrency: int = 1
) -> list[EvalResult]:
    with (
        RecordWriter(out / "s.jsonl", EvalResult) as results,
        RecordWriter(out / "t.jsonl", Trajectory) as trajectories,
    ):
        await evaluate(
            "s", qas, answerer, judge_model=judge or judging(), results=results, trajectories=trajectories,
            concurrency=concurrency,
        )  # fmt: skip
    return list(read_records(out / "s.jsonl", EvalResult))


def failing(reply: str, failing_numbers: set[int]) -> ChatModel:
    """Fails for some of the questions, by their number."""

    def rule(messages: object) -> str:
        text = str(messages)
        if any(f"born, {number}?" in text for number in failing_numbers):
            raise ModelError("status 500")
        return reply

    return RuleModel(rule)


async def test_a_question_on_which_the_model_fails_is_a_wrong_result(tmp_path: Path) -> None:
    found = await put(tmp_path, closed_book_answerer(failing('{"answer": "velm"}', {0, 3, 5})))
    assert len(found) == 6
    by_id = {result.qa_id: result for result in found}
    assert {id for id, r in by_id.items() if r.status is Status.MODEL_ERROR} == {"q0", "q3", "q5"}
    assert {id for id, r in by_id.items() if r.exact_match and r.correct} == {"q1", "q2", "q4"}
    assert {by_id[id].answer for id in ("q0", "q3", "q5")} == {None}


async def test_a_model_that_is_down_gives_no_results_and_a_resumed_run_asks_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="failed for 6 questions to s in a row, first: status 401"):
        await put(tmp_path, closed_book_answerer(ScriptedModel([ModelError("status 401")] * 6)))
    assert list(read_records(tmp_path / "s.jsonl", EvalResult)) == []
    found = await put(tmp_path, closed_book_answerer(RuleModel(lambda messages: '{"answer": "Velm"}')))
    assert [result.exact_match for result in found] == [True] * 6


async def test_a_judge_that_fails_leaves_the_status_and_the_exact_match(tmp_path: Path) -> None:
    answerer = agent(RuleModel(lambda messages: answer_turn("I know it.", "Velm")))
    found = await put(tmp_path, answerer, judge=failing(RIGHT, {2}))
    two = next(result for result in found if result.qa_id == "q2")
    assert (two.correct, two.exact_match, two.status) == (None, True, Status.ANSWERED)
    assert sum(result.correct is True for result in found) == 5


async def test_an_episode_on_disk_without_its_result_is_not_asked_again(tmp_path: Path) -> None:
    first = agent(RuleModel(lambda messages: answer_turn("I know it.", "Velm")))
    await put(tmp_path, first, qas=QAS[:1])
    (tmp_path / "s.jsonl").unlink()  # killed between the two writes
    other = agent(RuleModel(lambda messages: answer_turn("I know it.", "Orsk")))
    found = await put(tmp_path, other)
    assert {result.qa_id: result.answer for result in found} == {"q0": "Velm"} | {f"q{n}": "Orsk" for n in range(1, 6)}
    answers = {t.qa_id: t.answer for t in read_records(tmp_path / "t.jsonl", Trajectory)}
    assert answers == {result.qa_id: result.answer for result in found}


async def test_the_guess_is_the_most_frequent_answer_of_the_kind() -> None:
    def training(kind: QAKind, answers: list[str]) -> list[QA]:
        return [QAS[0].model_copy(update={"kind": kind, "answer": answer}) for answer in answers]

    guess = guess_answerer([*training(QAKind.COUNT, ["3", "7", "7"]), *training(QAKind.MULTI_HOP, ["Velm", "Orsk"])])
    count = QAS[0].model_copy(update={"kind": QAKind.COUNT})
    assert (await guess(count))[0] == "7"
    assert (await guess(QAS[0]))[0] == "Orsk"  # a tie: the first in the alphabet
    assert (await guess(QAS[0].model_copy(update={"kind": QAKind.INTERSECTION})))[0] is None
