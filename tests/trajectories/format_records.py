"""Trajectories and questions for the tests of the formats: made by hand, and generated with all that is awkward in them."""

from collections.abc import Sequence

from hypothesis import strategies as st

from webdancer.agent.format import neutralise
from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.records import QA, CotMode, QAKind, QASplit, Status, Step, ToolError, Trajectory, Usage
from webdancer.trajectories.formats.conversation import Conversation, to_conversation
from webdancer.trajectories.formats.writing import RunRecords

PIECES = (
    "Velm",
    " \n",
    "\n\nUser: ",
    "灯塔建于1904年。",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_response>",
    "\n</tool_response>\n\n",
    "<answer>",
    "<|im_end|>",
    "<|endoftext|>",
    "<｜User｜>",
    "=======",
    '{"name": "search"}',
    "\u2028",
    "\r\n",
    "\u200b",
    "🗼",
    "",
)


def texts(min_size: int = 0) -> st.SearchStrategy[str]:
    """Texts of all kinds, no half characters among them."""
    pieces = st.lists(st.sampled_from(PIECES), min_size=min_size, max_size=6).map("".join)
    return pieces | st.text(st.characters(codec="utf-8"), min_size=min_size, max_size=20)


def plain_texts() -> st.SearchStrategy[str]:
    """What can stand as a thought or an answer: never empty, no tags."""
    return texts(1).map(neutralise).filter(lambda text: bool(text.strip()))


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """A step with an observation."""
    observation = draw(texts())
    error = draw(st.none() | st.sampled_from(ToolError))
    seconds = draw(st.sampled_from((0.0, 0.25, 17.0)))
    if draw(st.booleans()):
        raw = draw(texts())
        return Step(
            thought=draw(texts()),
            observation=observation,
            error=error,
            raw=raw,
            cut=draw(st.booleans()),
            seconds=seconds,
        )
    tool, arguments = draw(
        st.one_of(
            texts(1).map(lambda query: ("search", {"query": [query, "Velm"]})),
            texts(1).map(lambda goal: ("visit", {"url": "http://velm.example/a", "goal": goal})),
            st.just(("compute", {"x": 1.5, "y": None})),
        )
    )
    return Step(
        thought=draw(plain_texts()),
        tool=tool,
        arguments=arguments,
        observation=observation,
        error=error,
        seconds=seconds,
    )


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """An episode: answered, answered when forced to, or without an answer."""
    status = draw(st.sampled_from((Status.ANSWERED, Status.FORCED_ANSWER, Status.STEP_LIMIT, Status.CONTEXT_FULL)))
    is_answered = status in (Status.ANSWERED, Status.FORCED_ANSWER)
    made = draw(st.lists(steps(), min_size=0 if is_answered else 1, max_size=3))
    if is_answered:
        made.append(Step(thought=draw(plain_texts())))
    return Trajectory(
        id=draw(st.sampled_from(("qa-1-a1", "问-a2", "x/y z"))),
        qa_id="qa-1",
        question=draw(texts(1)),
        model="teacher",
        seed=draw(st.integers(0, 2**53)),
        mode=draw(st.sampled_from(CotMode)),
        steps=tuple(made),
        answer=draw(plain_texts()) if is_answered else None,
        status=status,
        usage=Usage(prompt_tokens=900, completion_tokens=draw(st.integers(0, 50)), llm_calls=3, tool_calls=2),
        num_tokens=draw(st.integers(0, 32_768)),
        detail=draw(st.sampled_from(("", "the server said no"))),
    )


def conversation(trajectory: Trajectory) -> Conversation:
    return to_conversation(trajectory, TOOL_SCHEMAS, prompt="agent")


def make_trajectory(number: int, *, status: Status = Status.ANSWERED) -> Trajectory:
    """A good trajectory of two calls, in the words of the first tests."""
    search = Step(
        thought="I look. 先搜索。",
        tool="search",
        arguments={"query": ["lighthouse of Velm", "灯塔"]},
        observation='A search for "lighthouse of Velm" found 1 result:\n\n## Web Results\n1. [Velm](http://velm.example/)',
        seconds=0.5,
    )
    visit = Step(
        thought="I read the page.",
        tool="visit",
        arguments={"url": ["http://velm.example/"], "goal": "year"},
        observation="",
        error=ToolError.TOOL_TIMEOUT,
        seconds=60.0,
    )
    return Trajectory(
        id=f"qa-{number}-a1",
        qa_id=f"qa-{number}",
        question=f"When was lighthouse {number} of <b>Velm</b> built?",
        model="teacher",
        seed=number,
        steps=(search, visit, Step(thought="So it was.", seconds=1.0)),
        answer=f"190{number}",
        status=status,
        usage=Usage(prompt_tokens=100, completion_tokens=10, llm_calls=3, tool_calls=2),
        num_tokens=110,
    )


def make_qa(number: int, split: QASplit, *, kind: QAKind = QAKind.MULTI_HOP) -> QA:
    return QA(
        id=f"qa-{number}",
        question=f"When was lighthouse {number} of <b>Velm</b> built?",
        answer=f"190{number}",
        kind=kind,
        evidence_urls=("http://velm.example/", f"http://velm.example/{number}"),
        parent_id="qa-0" if kind is QAKind.EASY_TO_HARD else None,
        num_rewrites=2 if kind is QAKind.EASY_TO_HARD else 0,
        split=split,
    )


def make_records(sft: Sequence[int] = (1, 2), rl: Sequence[int] = (3, 4), heldout: Sequence[int] = (5,)) -> RunRecords:
    for_sft = [make_qa(n, QASplit.SFT, kind=QAKind.EASY_TO_HARD) for n in sft]
    for_rl = [make_qa(n, QASplit.RL) for n in rl]
    return RunRecords(
        sft=[make_trajectory(n, status=Status.FORCED_ANSWER if n == 2 else Status.ANSWERED) for n in sft],
        train=[*for_sft, *for_rl],
        rl=for_rl,
        heldout=[make_qa(n, QASplit.HELDOUT) for n in heldout],
    )
