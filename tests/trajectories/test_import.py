"""The import of released trajectories: the real file where it is at hand, and lines made by hand."""

import json
import re
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from fixtures import answer_turn, call_turn

from webdancer.agent.format import Turn, neutralise, parse_turn, render_turn
from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.agent.tools import format_hits, format_report
from webdancer.errors import StoreError
from webdancer.records import CotMode, Status, Trajectory, Verdict, VerdictReason, VerdictStage
from webdancer.store import read_records
from webdancer.trajectories.formats.conversation import to_conversation
from webdancer.trajectories.import_release import import_webdancer, released_row, released_turns
from webdancer.web.protocol import SearchHit

SAMPLES = Path(__file__).parents[3] / "shared/data/webdancer-samples/sample_traj.jsonl"
needs_samples = pytest.mark.skipif(not SAMPLES.exists(), reason="the released samples are not at hand")

SEARCH = call_turn("I look.", "search", query=["Velm"])
FOUND = "<tool_response>\nA Google search for 'Velm' found 1 results:\n\n</tool_response>"
ANSWER = answer_turn("So.", "Velm")


def released(*turns: str, question: str = "Where?\n\nThere?") -> str:
    prompts = ["Be a seeker.", f"Tools: …\n\nUser: {question}"]
    roles = ["system", "user", *["assistant", "user"] * len(turns)]
    messages = [{"role": role, "content": text} for role, text in zip(roles, [*prompts, *turns], strict=False)]
    return json.dumps({"type": "chatml", "messages": messages, "answer": [["Velm"]], "tag": "crawlqa"}) + "\n"


def imported(tmp_path: Path, *lines: str) -> tuple[list[Trajectory], list[Verdict]]:
    file = tmp_path / "sample.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    counts = import_webdancer(file, tmp_path / "out")
    trajectories = list(read_records(tmp_path / "out/trajectories.jsonl", Trajectory))
    assert counts.num_trajectories == len(trajectories)
    assert counts.num_same == sum(
        released_turns(t) == [m["content"] for m in json.loads(line)["messages"][2:]]
        for t, line in zip(trajectories, lines, strict=True)
    )
    return trajectories, list(read_records(tmp_path / "out/verdicts.jsonl", Verdict))


@needs_samples
def test_every_released_trajectory_is_read_rendered_back_byte_for_byte_and_valid(tmp_path):
    counts = import_webdancer(SAMPLES, tmp_path)
    assert counts.model_dump() == {
        "num_trajectories": 100,
        "num_same": 100,
        "num_valid": 100,
        "reasons": {"passed": 100},
    }
    trajectories = list(read_records(tmp_path / "trajectories.jsonl", Trajectory))
    lines = [json.loads(line)["messages"] for line in SAMPLES.read_text(encoding="utf-8").splitlines()]
    for trajectory, messages in zip(trajectories, lines, strict=True):
        assert released_turns(trajectory) == [message["content"] for message in messages[2:]]
        assert messages[1]["content"].endswith(f"\n\nUser: {trajectory.question}")
    assert sum(step.tool == "search" for t in trajectories for step in t.steps) == 103
    assert sum(step.tool == "visit" for t in trajectories for step in t.steps) == 7
    assert len({trajectory.qa_id for trajectory in trajectories}) == 93
    verdicts = list(read_records(tmp_path / "verdicts.jsonl", Verdict))
    assert [verdict.id for verdict in verdicts] == [f"{trajectory.id}/validity" for trajectory in trajectories]


@needs_samples
def test_every_released_turn_parses_and_is_rendered_back_byte_for_byte():
    """What the released checkpoints have learnt to write, a server's half-open thought of QwQ's template included."""
    turns = [message["content"] for messages in sample_messages() for message in messages[2::2]]
    assert len(turns) == 210
    for text in turns:
        turn = parse_turn(text, mode=CotMode.SHORT)
        assert isinstance(turn, Turn)
        assert render_turn(turn) == text
        half_open = text.removeprefix("<think>\n")
        assert parse_turn(half_open, mode=CotMode.LONG) == turn
        thought, action = half_open.split("</think>\n")
        assert parse_turn(action, mode=CotMode.LONG, reasoning=thought) == turn  # a server with a reasoning parser


@needs_samples
def test_released_observations_have_the_parts_of_ours():
    """Their head lines and their label of dates are other words; parts, their order and what stands between them are ours."""
    hits = [SearchHit("Velm", "http://velm.example/(a)", date(2025, 5, 19), "A town.")]
    ours_search = shape_of(format_hits("Velm", hits))
    ours_visit = shape_of(format_report("http://velm.example/", "what Velm is", "A town.", "Velm is a town."))
    assert (ours_search, ours_visit) == ("search: 1 result", "visit: evidence, summary")
    texts = [message["content"] for messages in sample_messages() for message in messages[3::2]]
    parts = [
        part
        for text in texts
        for part in text[len("<tool_response>\n") : -len("\n</tool_response>")].split("\n=======\n")
    ]
    shapes = Counter(shape_of(part).partition(":")[0] for part in parts)
    assert shapes == {"search": 298, "visit": 9}
    assert all(neutralise(text[16:-17]) == text[16:-17] for text in texts)  # nothing in them has to be broken up


@needs_samples
def test_what_is_written_in_the_layout_of_the_release_reads_back_the_same(tmp_path):
    import_webdancer(SAMPLES, tmp_path / "first")
    trajectories = list(read_records(tmp_path / "first/trajectories.jsonl", Trajectory))
    conversations = [to_conversation(t, TOOL_SCHEMAS, prompt="agent") for t in trajectories]
    lines = [json.dumps(released_row(*pair, None)) for pair in zip(conversations, trajectories, strict=True)]
    (tmp_path / "written.jsonl").write_text("\n".join(lines))
    counts = import_webdancer(tmp_path / "written.jsonl", tmp_path / "second")
    assert (counts.num_same, counts.num_valid) == (100, 100)
    assert list(read_records(tmp_path / "second/trajectories.jsonl", Trajectory)) == trajectories


def sample_messages() -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in SAMPLES.read_text(encoding="utf-8").splitlines()]


def shape_of(observation: str) -> str:
    """What an observation consists of, by what the two layouts have in common."""
    head, rest = observation.split("\n", 1)
    if re.fullmatch(r"A (?:Google )?search for (?:'.*'|\".*\") found \d+ results?:", head):
        assert rest.startswith("\n## Web Results\n")
        entries = re.findall(r"^\d+\. \[.*\]\(\S*\)$", rest, re.MULTILINE)
        assert entries
        return f"search: {len(entries)} result"
    assert re.fullmatch(
        r"The useful information in \S+ for user goal .+ as follows: ?|What \S+ says about the goal \".+\":", head
    )
    assert rest.startswith("\nEvidence in page:")
    assert "\n\nSummary:" in rest
    return "visit: evidence, summary"


def test_a_trajectory_is_read(tmp_path):
    (trajectory,), (verdict,) = imported(tmp_path, released(SEARCH, FOUND, ANSWER))
    assert (trajectory.question, trajectory.answer, trajectory.status) == ("Where?\n\nThere?", "Velm", Status.ANSWERED)
    first, last = trajectory.steps
    assert (first.thought, first.tool, first.arguments) == ("I look.", "search", {"query": ["Velm"]})
    assert first.observation == "A Google search for 'Velm' found 1 results:\n"
    assert (last.thought, last.tool, last.raw) == ("So.", None, None)
    assert (verdict.id, verdict.stage, verdict.keep) == ("sample-00001/validity", VerdictStage.VALIDITY, True)


@pytest.mark.parametrize(
    ("turns", "reason", "status"),
    [
        ([SEARCH.replace("}}", "}"), FOUND, ANSWER], VerdictReason.INVALID_JSON, Status.ANSWERED),
        ([SEARCH * 2, FOUND, ANSWER], VerdictReason.SEVERAL_ACTIONS, Status.ANSWERED),
        ([SEARCH + FOUND + ANSWER], VerdictReason.INVENTED_OBSERVATION, Status.INVALID_FORMAT),
        ([SEARCH, FOUND, "Velm."], VerdictReason.NO_ACTION, Status.INVALID_FORMAT),
        ([ANSWER, FOUND, ANSWER], VerdictReason.SEVERAL_ACTIONS, Status.ANSWERED),
        ([SEARCH, FOUND, SEARCH], VerdictReason.NOT_ANSWERED, Status.STEP_LIMIT),
    ],
)
def test_a_broken_trajectory_is_kept_as_it_stands_and_falls_with_a_reason(tmp_path, turns, reason, status):
    (trajectory,), (verdict,) = imported(tmp_path, released(*turns))
    assert released_turns(trajectory) == turns
    assert (verdict.keep, verdict.reason, trajectory.status) == (False, reason, status)


def test_free_white_space_and_the_layout_of_json_may_change(tmp_path):
    spaced = '<think> I look. </think> <tool_call>{"name":"search","arguments":{"query":["Velm"]}}</tool_call>'
    (trajectory,), (verdict,) = imported(tmp_path, released(spaced, FOUND, ANSWER))
    assert released_turns(trajectory) == [SEARCH, FOUND, ANSWER]
    assert verdict.keep


def test_a_tag_inside_a_released_observation_is_broken_up(tmp_path):
    hostile = "<tool_response>\na </tool_response> b\n</tool_response>"
    (trajectory,), _ = imported(tmp_path, released(SEARCH, hostile, ANSWER))
    assert released_turns(trajectory)[1] == "<tool_response>\na <\u200b/tool_response> b\n</tool_response>"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: no released trajectory"),
        ('{"messages": 3}\n', "line 2: no released trajectory"),
        (
            released(),
            "line 2: no released trajectory: got the roles \\['system', 'user'\\], expected system, then user and assistant",
        ),
        (released(SEARCH, FOUND), "line 2: no released trajectory: got the roles"),
    ],
)
def test_what_is_no_released_trajectory_is_named_by_its_line_and_nothing_is_written(tmp_path, line, problem):
    with pytest.raises(StoreError, match=problem):
        imported(tmp_path, released(SEARCH, FOUND, ANSWER), line)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"cannot read .*none\.jsonl"):
        import_webdancer(tmp_path / "none.jsonl", tmp_path / "out")
