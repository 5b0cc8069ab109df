"""The funnel's rules: each finding with its reason, at its threshold."""

import pytest
from fixtures import answer_turn, call_turn

from webdancer.agent.format import ViolationKind
from webdancer.config import FunnelSettings
from webdancer.records import CotMode, Status, Step, ToolError, Trajectory, VerdictReason
from webdancer.trajectories.rules import (
    REASONS,
    check_rules,
    check_validity,
    invented_observation,
    ngrams,
    repeated_action,
    repetition,
    too_few_actions,
    too_many_errors,
)

R = VerdictReason
SETTINGS = FunnelSettings()
FOUND = 'A search for "Velm" found 1 result:\n\n## Web Results\n1. [Velm](http://w.example/Velm)\nA city.'
SEARCH = Step(thought="I look.", tool="search", arguments={"query": ["Velm"]}, observation=FOUND)
VISIT = Step(thought="I read.", tool="visit", arguments={"url": "http://w.example/Velm", "goal": "g"}, observation="x")
LAST = Step(thought="So it is.")


def trajectory(*steps: Step, answer: str | None = "Velm", status=Status.ANSWERED, mode=CotMode.SHORT) -> Trajectory:
    return Trajectory(
        id="t", qa_id="q", question="Where?", model="m", seed=0, mode=mode, steps=steps, answer=answer, status=status
    )


def raw(text: str) -> Step:
    return Step(thought="", observation="Error: …", error=ToolError.INVALID_FORMAT, raw=text)


def test_a_clean_trajectory_passes():
    assert check_validity(trajectory(SEARCH, VISIT, LAST)) is None
    assert check_rules(trajectory(SEARCH, VISIT, LAST), SETTINGS) is None


def test_every_violation_has_a_reason():
    assert set(REASONS) == set(ViolationKind)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (call_turn("a", "search", query=["x"]).replace("}}", "}"), R.INVALID_JSON),
        (call_turn("a", "google", query=["x"]), R.UNKNOWN_TOOL),
        (call_turn("a", "search", queries=["x"]), R.INVALID_ARGUMENTS),
        (call_turn("a", "search", query=["x"]) * 2, R.SEVERAL_ACTIONS),
        (call_turn("a", "search", query=["x"]) + "<answer>b</answer>", R.SEVERAL_ACTIONS),
        (call_turn("a", "search", query=["x"]) + "\n<tool_response>\nb\n</tool_response>", R.INVENTED_OBSERVATION),
        ("</think>\n" + call_turn("a", "search", query=["x"]), R.BROKEN_TAGS),
        (call_turn("a", "search", query=["x"]).split("</think>\n")[1], R.NO_THOUGHT),
        ("<think>\na\n</think>", R.NO_ACTION),
        ("<think>\na\n" + call_turn("b", "search", query=["x"]), R.BROKEN_TAGS),
        ("Well.\n" + answer_turn("a", "b"), R.TEXT_OUTSIDE_TAGS),
        (answer_turn("a", " "), R.NOT_ANSWERED),
    ],
)
def test_a_broken_turn_drops_the_trajectory_though_it_was_mended_later(text, reason):
    finding = check_validity(trajectory(SEARCH, raw(text), LAST))
    assert finding is not None
    assert finding.reason is reason
    assert finding.detail.startswith("step 2: ")


@pytest.mark.parametrize(
    ("steps", "answer", "status", "reason", "detail"),
    [
        ((SEARCH, LAST), "Velm", Status.FORCED_ANSWER, R.NOT_ANSWERED, "the episode ended as forced_answer"),
        ((SEARCH,), None, Status.STEP_LIMIT, R.NOT_ANSWERED, "the episode ended as step_limit"),
        ((), None, Status.MODEL_ERROR, R.NOT_ANSWERED, "the episode ended as model_error"),
        ((SEARCH,), None, Status.ANSWERED, R.NOT_ANSWERED, "the last step holds no answer"),
        ((SEARCH,), "Velm", Status.ANSWERED, R.NOT_ANSWERED, "the last step holds no answer"),
        ((LAST, SEARCH, LAST), "Velm", Status.ANSWERED, R.NO_ACTION, "step 1: no_action: got neither"),
        ((SEARCH, LAST), " ", Status.ANSWERED, R.NOT_ANSWERED, "step 2: empty_answer"),
        ((SEARCH, LAST), "a</answer>", Status.ANSWERED, R.BROKEN_TAGS, "step 2: stray_tag"),
        ((SEARCH, Step(thought="")), "Velm", Status.ANSWERED, R.NO_THOUGHT, "step 2: missing_thought"),
        ((raw(answer_turn("a", "b")), LAST), "Velm", Status.ANSWERED, R.SEVERAL_ACTIONS, "step 1: several_answers"),
        ((Step(thought="a", tool="google"), LAST), "Velm", Status.ANSWERED, R.UNKNOWN_TOOL, "step 1: unknown_tool"),
    ],
)
def test_validity_rests_on_the_text_and_not_on_the_episodes_word(steps, answer, status, reason, detail):
    finding = check_validity(trajectory(*steps, answer=answer, status=status))
    assert finding is not None
    assert finding.reason is reason
    assert finding.detail.startswith(detail)


def test_in_long_cot_the_stored_thought_is_the_reasoning_of_a_raw_turn():
    step = Step(thought="I look.", raw="<tool_call>\n{}\n</tool_call>", observation="Error: …")
    finding = check_validity(trajectory(step, LAST, mode=CotMode.LONG))
    assert finding is not None
    assert finding.reason is R.INVALID_JSON


def test_a_thought_that_holds_a_result_which_no_tool_gave_is_invented():
    told = Step(
        thought=f"I got:\n{FOUND}\nSo it is Velm.", tool="search", arguments={"query": ["Velm"]}, observation=FOUND
    )
    finding = invented_observation(trajectory(told, LAST))
    assert finding is not None
    assert finding.reason is R.INVENTED_OBSERVATION
    assert finding.detail == "step 1: no tool had said 'A search for \"Velm\" found 1 result:'"


def test_a_thought_that_quotes_a_result_which_a_tool_gave_is_fine():
    quoting = LAST.model_copy(update={"thought": f"It said:\n{FOUND}"})
    assert invented_observation(trajectory(SEARCH, quoting)) is None


@pytest.mark.parametrize(
    "head",
    [
        "A Google search for 'Velm' found 9 results:",
        'What http://w.example/Velm says about the goal "its river":',
        "The useful information in http://w.example/Velm for user goal its river as follows:",
        "Results:\n1. [Velm](http://w.example/Velm)",
        "Evidence:\nRiver | Orn\nVelm is old.\nSummary: Velm lies on the Orn.",
    ],
)
def test_all_first_lines_of_results_are_known(head):
    thinking = LAST.model_copy(update={"thought": f"See:\n{head}\nx"})
    assert invented_observation(trajectory(SEARCH.model_copy(update={"observation": "none"}), thinking)) is not None
    assert invented_observation(trajectory(SEARCH.model_copy(update={"observation": head}), thinking)) is None


@pytest.mark.parametrize(
    "thought", ["Results:\nnothing of use.", "Evidence:\nthe page\n\nSummary: so.", "Summary: Velm."]
)
def test_a_thought_may_use_the_words_of_brief_results(thought):
    assert invented_observation(trajectory(SEARCH, LAST.model_copy(update={"thought": thought}))) is None


def test_runs_of_words_ignore_case_and_punctuation():
    assert list(ngrams("The end, the End.", 2)) == [("the", "end"), ("end", "the"), ("the", "end")]
    assert list(ngrams("one two", 3)) == []


def test_five_words_are_eight_chinese_characters():
    assert ["".join(run) for run in ngrams("我们，再看一次页面。", 5)] == ["我们再看一次页面"]
    assert ["".join(run) for run in ngrams("我们再看一次这页面", 5)] == ["我们再看一次这页", "们再看一次这页面"]
    assert list(ngrams("我们再看一次页", 5)) == []
    # A word is 8 eighths, a character 5: 8 + 5 + 5 reach 16, and so do 5 + 5 + 5 + 5 and 5 + 5 + 5 + 8.
    assert ["".join(run) for run in ngrams("see 北京大学 ok", 2)] == ["see北京", "北京大学", "京大学ok", "大学ok"]


PHRASE = "we must look at this page once more to see"  # ten words


@pytest.mark.parametrize(("times", "falls"), [(4, False), (5, True)])
@pytest.mark.parametrize("spread", [False, True])
def test_the_same_ten_words_more_than_four_times_is_repetition(times, falls, spread):
    if spread:
        steps = [SEARCH.model_copy(update={"thought": f"{PHRASE} {i}"}) for i in range(times)]
    else:
        steps = [SEARCH.model_copy(update={"thought": "; ".join(f"{PHRASE} {i}" for i in range(times))})]
    finding = repetition(trajectory(*steps, LAST), SETTINGS)
    assert (finding is not None) is falls
    if finding is not None:
        assert finding == (R.REPETITION, f"5 times: '{PHRASE}'")


SIXTEEN = "我需要再看一次这个页面才能确定吧"


@pytest.mark.parametrize(("times", "falls"), [(4, False), (5, True)])
def test_the_same_sixteen_chinese_characters_more_than_four_times_is_repetition(times, falls):
    assert len(SIXTEEN) == 16
    thought = "".join(f"{SIXTEEN}。第{'一二三四五'[i]}回，" for i in range(times))
    finding = repetition(trajectory(LAST.model_copy(update={"thought": thought})), SETTINGS)
    assert (finding is not None) is falls
    if finding is not None:
        assert finding == (R.REPETITION, f"5 times: {' '.join(SIXTEEN)!r}")


def test_a_long_chinese_name_in_every_thought_is_no_repetition():
    """Ten characters were ten words once, and the full name of an institute made every good trajectory fall."""
    name = "江城师范学院附属实验中学"
    ways = [
        "先查{}在哪里。",
        "搜索结果里有{}的页面。",
        "读一读{}的历史。",
        "{}建于一九五二年。",
        "那么{}的校长是谁？",
        "所以{}就是答案。",
    ]
    steps = [SEARCH.model_copy(update={"thought": way.format(name)}) for way in ways]
    assert repetition(trajectory(*steps, LAST), SETTINGS) is None


def test_a_chinese_query_in_other_width_is_the_same_call():
    steps = [search("江城大桥 2021年"), search("江城大桥　２０２１年"), search("江城大桥  2021年")]
    finding = repeated_action(trajectory(*steps, LAST), SETTINGS)
    assert finding is not None
    assert finding.reason is R.REPEATED_ACTION


def test_runs_do_not_reach_from_one_thought_into_the_next():
    steps = [SEARCH.model_copy(update={"thought": "we must look at this"})] * 9
    assert repetition(trajectory(*steps), SETTINGS) is None


def search(*queries: str, year: int | None = None) -> Step:
    arguments = {"query": list(queries)} | ({} if year is None else {"filter_year": year})
    return Step(thought="a", tool="search", arguments=arguments, observation="x")


@pytest.mark.parametrize(
    ("steps", "falls"),
    [
        ([search("Velm", "Orn")] * 2, False),
        ([search("Velm", "Orn"), search("orn", " VELM "), search("Velm", "Orn", "Orn")], True),
        ([search("Velm"), search("Velm"), search("Velm", year=1990)], False),
        (
            [
                VISIT,
                VISIT,
                VISIT.model_copy(update={"arguments": {"url_link": ["http://w.example/Velm"], "goal": "G"}}),
            ],
            True,
        ),
        ([VISIT, VISIT, VISIT.model_copy(update={"arguments": {"url": "http://w.example/velm", "goal": "g"}})], False),
    ],
)
def test_the_very_same_call_more_than_twice_is_a_repeated_action(steps, falls):
    finding = repeated_action(trajectory(*steps, LAST), SETTINGS)
    assert (finding is not None) is falls
    if finding is not None:
        assert finding.reason is R.REPEATED_ACTION
        assert finding.detail.startswith("3 times: ")


@pytest.mark.parametrize(("num_errors", "falls"), [(3, False), (4, True)])
def test_more_than_three_errors_are_too_many(num_errors, falls):
    failed = [search(str(i)).model_copy(update={"error": ToolError.TOOL_FAILED}) for i in range(num_errors)]
    finding = too_many_errors(trajectory(*failed, LAST), SETTINGS)
    assert (finding is not None) is falls


@pytest.mark.parametrize(("steps", "falls"), [([LAST], True), ([SEARCH, LAST], True), ([SEARCH, VISIT, LAST], False)])
def test_fewer_than_two_tool_calls_are_too_few(steps, falls):
    finding = too_few_actions(trajectory(*steps), SETTINGS)
    assert (finding is not None) is falls
    if finding is not None:
        assert finding.reason is R.TOO_FEW_ACTIONS
        assert finding.detail == f"{len(steps) - 1} tool calls, expected 2 or more"
